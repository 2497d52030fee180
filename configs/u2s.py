"""U2S as its authors train it (Zhao et al. 2020, section IV.B), on HMDB-51, UCF-101 or a folder of videos.

The paper's top-1 in per cent, the one-pass twin's and U2S': HMDB-51 RGB 63.27, 65.49, flow 53.40, 56.34, both 70.24,
73.99; UCF-101 RGB 89.16, 92.31, flow 80.48, 82.66, both 92.43, 94.32 (table VI); Something-Something V2, RGB, 56.52,
58.47 (table I). There is no public code, and none of this was trained here: the data are not ours to ship.

    jaxvid train --config=configs/u2s.py:hmdb51 --workdir=runs/u2s --config.data.root=HMDB51
    jaxvid eval --checkpoint=runs/u2s
    jaxvid eval --checkpoint=runs/u2s/universal
    jaxvid compare runs/u2s runs/u2s/universal

The argument is `hmdb51`, `ucf101` or `folder` (as configs/folder.py; Something-Something V2 can be laid out so), and
behind a comma a variant of table III: `configs/u2s.py:hmdb51,soft`. The second stream is the same command on the output
of `jaxvid data flow`, with --config.data.modality=flow; then `jaxvid fuse`.

The authors begin with weights of Kinetics: --config.finetune.weights=RUN. They lower the rate when the validation error
stays, after 7 and 12 epochs; that there are 15, and 5 of joint training, is ours, and so are three clips of three crops
in place of their ten crops. How many classes are confused is read off the test list, as these sets have no other one
and the paper names none; --config.model.u2s.num_confusing sets it beforehand.
"""

from jaxvid import config as jaxvid_config

TOP_ACCURACY = {"hmdb51": 0.90, "ucf101": 0.95, "folder": 0.85}  # the last for Something-Something V2


def get_config(options: str = "hmdb51"):
    name, _, variant = options.partition(",")
    if name not in TOP_ACCURACY:
        raise ValueError(f"configs/u2s.py takes the argument {', '.join(TOP_ACCURACY)}, received {name!r}.")
    config = jaxvid_config.base()
    config.model.name = "u2s_resnet_50"
    config.model.u2s.enabled = True
    config.model.u2s.variant = variant or "full"
    config.model.u2s.top_accuracy = TOP_ACCURACY[name]
    config.data.name = name
    if name != "folder":
        config.data.eval_split = "test"
    config.data.num_frames = 18
    config.data.sampler = "uniform"
    config.data.short_side = (240, 240)
    config.data.crop_size = 224
    config.data.num_workers = 4
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.momentum = 0.9
    config.optimizer.weight_decay = 1e-4
    config.schedule.name = "step"
    config.schedule.boundaries = (7.0, 12.0)
    config.train.stages = (("universal", 15.0, 1.0), ("specific", 15.0, 1.0), ("joint", 5.0, 0.1))
    config.train.batch_size = 20
    config.eval.short_side = 240
    config.eval.crop_size = 224
    config.eval.num_clips = 3
    config.eval.num_crops = 3
    return config
