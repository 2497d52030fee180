"""r3d-18, a quarter as wide, on the embedded data set `motion_fine`: six movements, each in two classes.

Nothing to compare with: the data set is ours. Seen, on the 288 clips of `val` with seed 0: top-1 71.5 %. The movement
is right in 99.3 % (chance 16.7 %). Between its two classes, the detail, the network decides rightly in 72.2 % (chance
50 %): one flash or two 97.9 %, a hop early or late 63.5 %, a hop or none 55.2 %, which is hardly learned. In the last
epoch of training top-1 was 73.8 %.

    jaxvid train --config=configs/motion_fine.py --workdir=runs/motion_fine

The argument chooses another network, trained in just the same way: `configs/motion_fine.py:srtg_r3d_18`.
"""

import pathlib
import runpy

_MOTION = pathlib.Path(__file__).with_name("motion.py")


def get_config(model: str = "r3d_18"):
    config = runpy.run_path(str(_MOTION))["get_config"](model)
    config.data.name = "motion_fine"
    return config
