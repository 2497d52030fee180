"""MTNet on `motion`: the ablations of the thesis' tables 5.6, 5.7 and 5.8, one argument each.

    jaxvid train --config=configs/mtnet.py --workdir=runs/mtnet
    jaxvid train --config=configs/mtnet.py:delta=0.5 --workdir=runs/mtnet-half            table 5.6
    jaxvid train --config=configs/mtnet.py:cell=lstm --workdir=runs/mtnet-lstm            table 5.7
    jaxvid train --config=configs/mtnet.py:pool=avg,selection=none --workdir=runs/mtnet-avg  table 5.8

The thesis (A. Stergiou, 2022) measures on HACS at 16x256x256 with SGD for 400 epochs: nothing here to compare with. For
other videos: --config.data.name=folder --config.data.root=VIDEOS --config.model.width=64.
"""

from jaxvid import config as jaxvid_config

OPTIONS = ("delta", "cell", "pool", "selection", "groups", "num_layers")


def get_config(options: str = ""):
    given = tuple(option for option in options.split(",") if option)
    for option in given:
        if option.partition("=")[0] not in OPTIONS:
            raise ValueError(f"configs/mtnet.py takes {', '.join(OPTIONS)} as name=value, received {option!r}.")
    config = jaxvid_config.base()
    config.model.name = "mtnet_s"
    config.model.width = 32
    config.model.options = given
    config.data.short_side = (45, 45)
    config.data.crop_size = 40
    config.data.cache_gib = 0.25  # both splits take 0.16
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup_epochs = 1.0
    config.train.num_epochs = 10.0
    config.train.batch_size = 16
    config.train.cpu_devices = 2
    config.eval.short_side = 45
    config.eval.crop_size = 40
    return config
