"""I3D of Kinetics-400 on UT-Interaction: its last two Inception modules and the classifier, leaving one sequence out.

It goes on from the runs of `configs/ut_interaction_i3d_head.py`, each fold from its own: a classifier that starts at
random would first spoil the blocks behind which it stands.

    jaxvid train --config=configs/ut_interaction_i3d_last_blocks.py:set1 --workdir=runs/ut-i3d-last-blocks \
        --config.data.root=UT_INTERACTION

The argument is `set1`, `set2` or `both`. Seen with seed 0 and one clip of three crops: 55/60 in set 1, 53/60 in set 2,
less than the classifier alone (56 and 55): 54 clips are few for 4.8 million more parameters, whose BatchNorms see them
18 at a time.
"""

import pathlib
import runpy

_HEAD = pathlib.Path(__file__).with_name("ut_interaction_i3d_head.py")


def get_config(sets: str = "both"):
    config = runpy.run_path(str(_HEAD))["get_config"](sets)
    config.finetune.weights = "runs/ut-i3d-head/{fold}"
    config.finetune.trainable = ("stage4", "head")
    config.optimizer.learning_rate = 5e-5
    config.schedule.warmup_epochs = 1.0
    config.train.num_epochs = 10.0
    config.eval.every_epochs = 10.0
    return config
