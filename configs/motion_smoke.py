"""At most 60 steps of a tiny SRTG on `motion`, a checkpoint every 5 steps: for tests of the trainer.

jaxvid train --config=configs/motion_smoke.py --workdir=runs/smoke
"""

from jaxvid import config as jaxvid_config


def get_config():
    config = jaxvid_config.base()
    config.model.name = "srtg_r3d_18"
    config.model.width = 4
    config.data.num_frames = 8
    config.data.short_side = (36, 36)
    config.data.crop_size = 32
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.ema_decay = 0.9
    config.train.num_epochs = 1.0
    config.train.max_steps = 60
    config.train.batch_size = 8
    config.checkpoint.every_steps = 5
    config.eval.every_epochs = 0.25
    config.eval.short_side = 36
    config.eval.crop_size = 32
    return config
