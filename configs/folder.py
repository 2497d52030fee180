"""Your own videos: DIR/train/CLASS/*.mp4 and DIR/val/CLASS/*.mp4, or DIR/CLASS/*.mp4 with a held-out share.

    jaxvid train --config=configs/folder.py --workdir=runs/mine --config.data.root=DIR
    jaxvid train --config=configs/folder.py --workdir=runs/mine --config.data.root=DIR --config.data.val_fraction=0.2

`configs/folder.py:smoke` is a tiny network and one pass over the data, to see that everything is in place.
`configs/folder.py:images` is for folders of images: resnet2d_50 with the augmentation of He et al. 2016 (section 3.4).
"""

from jaxvid import config as jaxvid_config


def get_config(variant: str = "full"):
    if variant not in ("full", "smoke", "images"):
        raise ValueError(f"configs/folder.py takes the argument full, smoke or images, received {variant!r}.")
    config = jaxvid_config.base()
    config.data.name = "folder"
    config.model.name = "srtg_r3d_34"
    config.data.frame_stride = 2
    config.data.short_side = (128, 160)
    config.data.crop_size = 112
    config.data.flip = True
    config.data.num_workers = 4
    config.optimizer.base_batch_size = 32
    config.train.num_epochs = 60.0
    config.schedule.warmup_epochs = 5.0
    config.eval.short_side = 128
    config.eval.crop_size = 112
    config.eval.num_clips = 3
    if variant == "smoke":
        config.model.name = "srtg_r3d_18"
        config.model.width = 4
        config.data.num_frames = 8
        config.data.short_side = (36, 36)
        config.data.crop_size = 32
        config.data.num_workers = 0
        config.train.num_epochs = 1.0
        config.train.batch_size = 8
        config.schedule.warmup_epochs = 0.0
        config.eval.batch_size = 8
        config.eval.short_side = 36
        config.eval.crop_size = 32
        config.eval.num_clips = 1
    if variant == "images":
        config.model.name = "resnet2d_50"
        config.data.num_frames = config.data.frame_stride = config.eval.num_clips = 1
        config.data.short_side = (256, 480)
        config.data.crop_size = config.eval.crop_size = 224
        config.eval.short_side = 256
        config.optimizer.base_batch_size = 256
        config.optimizer.weight_decay = 1e-4
    return config
