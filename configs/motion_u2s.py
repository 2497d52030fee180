"""U2S on `motion_fine`, whose classes come in pairs that differ in a detail: a second look at what is confused.

    jaxvid train --config=configs/motion_u2s.py --workdir=runs/motion-u2s
    jaxvid eval --checkpoint=runs/motion-u2s
    jaxvid eval --checkpoint=runs/motion-u2s/universal
    jaxvid compare runs/motion-u2s runs/motion-u2s/universal

Seen with r3d_18 and seed 0, top-1 on the 288 clips of `val`: the twin 71.5 %, after the second stage 72.2 %, in the end
70.5 % (universal 69.4, specific 69.8, mask 71.2 by themselves; with an oracle 70.5). Against the twin 9 clips are won
and 12 lost (exact p = 0.66): no gain here. The similarity of the classes finds five of the six pairs by itself. With
tsm_r18, which learns little of such details from scratch at this width, 26.0 %, the twin 27.8 % (12 clips won, 17 lost,
exact p = 0.46).

The first stage is the network by itself, with the recipe of configs/motion_fine.py: the one-pass twin. The argument
chooses the network and a variant of the paper's table III (Zhao et al. 2020): `configs/motion_u2s.py:tsm_r18`,
`configs/motion_u2s.py:r3d_18,no_mask` (simple, soft, non_local).
"""

import pathlib
import runpy

_TWIN = pathlib.Path(__file__).with_name("motion_fine.py")


def get_config(options: str = "r3d_18"):
    network, _, variant = options.partition(",")
    config = runpy.run_path(str(_TWIN))["get_config"](network)
    config.model.u2s.enabled = True
    config.model.u2s.variant = variant or "full"
    config.train.stages = (("universal", config.train.num_epochs, 1.0), ("specific", 8.0, 1.0), ("joint", 4.0, 0.1))
    return config
