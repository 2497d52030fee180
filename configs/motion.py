"""SRTG r3d-18, a quarter as wide, on the embedded data set `motion`.

Nothing to compare with: the data set is ours. Expected: see the README's table.

    jaxvid train --config=configs/motion.py --workdir=runs/motion

The argument chooses another network, trained in just the same way: `configs/motion.py:r3d_18`.
"""

from jaxvid import config as jaxvid_config


def get_config(model: str = "srtg_r3d_18"):
    config = jaxvid_config.base()
    config.model.name = model
    config.model.width = 16
    if model.startswith("srtg_"):
        config.model.srtg.cell = "gru"  # starts nearest to the identity: an LSTM's first h is at most tanh(1)
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
