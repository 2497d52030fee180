"""r3d-18, a quarter as wide, on the embedded data set `motion_fine`: six movements, each in two classes.

Nothing to compare with: the data set is ours. Seen, on the 288 clips of `val` with seed 0: top-1 71.5 %. The movement
is right in 99.3 % (chance 16.7 %). Between its two classes, the detail, the network decides rightly in 72.2 % (chance
50 %): one flash or two 97.9 %, a hop early or late 63.5 %, a hop or none 55.2 %, which is hardly learned. In the last
epoch of training top-1 was 73.8 %.

    jaxvid train --config=configs/motion_fine.py --workdir=runs/motion_fine

The argument chooses another network, trained in just the same way: `configs/motion_fine.py:srtg_r3d_18`.
"""

from jaxvid import config as jaxvid_config


def get_config(model: str = "r3d_18"):
    config = jaxvid_config.base()
    config.model.name = model
    config.model.width = 16
    if model.startswith("srtg_"):
        config.model.srtg.cell = "gru"  # as configs/motion.py
    config.data.name = "motion_fine"
    config.data.short_side = (45, 45)
    config.data.crop_size = 40
    config.data.cache_gib = 0.25  # both splits take 0.16
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.01
    config.schedule.warmup_epochs = 1.0
    config.train.num_epochs = 22.0
    config.train.batch_size = 16
    config.train.cpu_devices = 2
    config.eval.short_side = 45
    config.eval.crop_size = 40
    return config
