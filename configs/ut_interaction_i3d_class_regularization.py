"""Class Regularization added to I3D of Kinetics-400 on UT-Interaction, leaving one sequence out.

Each fold goes on from its own run of `configs/ut_interaction_i3d_head.py`, which is the twin. Only the regularisation
is trained, from a Kaiming start at rate 0.1. With `last_blocks` each fold goes on from there, and the last two
Inception modules are trained too, as in Stergiou, Poppe and Veltkamp 2020 (section 4), and the classifier, at 1e-3.
Both rates are those of the thesis (section 6.4.2), which reduces them to a tenth after 50 or 70 of 120 epochs; here
that is after two of three.

    jaxvid train --config=configs/ut_interaction_i3d_class_regularization.py:set1 --workdir=runs/ut-i3d-cr \
        --config.data.root=UT_INTERACTION
    jaxvid compare runs/ut-i3d-cr runs/ut-i3d-head

The argument is `set1`, `set2` or `both`, and `,last_blocks` behind it. Seen in set 1 with seed 0 and one clip of three
crops: 53 of 60, the twin 56; 1 clip is won and 4 are lost (exact p = 0.38). Each stage takes nearly all clips for one
class. The last blocks straight from the twin's weights, with the regularisation as it was drawn, came to 41 of 60 (2
won, 17 lost, exact p = 0.0007): 1e-3 is too little for a new one. From the trained one they were not run yet.
"""

import pathlib
import runpy

_HEAD = pathlib.Path(__file__).with_name("ut_interaction_i3d_head.py")


def get_config(options: str = "both"):
    sets, *how = options.split(",")
    if how not in ([], ["last_blocks"]):
        raise ValueError(
            f"the argument must be set1, set2 or both, then ,last_blocks or nothing, received {options!r}."
        )
    config = runpy.run_path(str(_HEAD))["get_config"](sets)
    config.model.class_regularization.enabled = True
    config.finetune.weights = "runs/ut-i3d-cr/{fold}" if how else "runs/ut-i3d-head/{fold}"
    config.finetune.trainable = ("class_regularization", *("stage4", "head") * bool(how))
    config.finetune.draws = 3  # of what stage 1 makes, in front of the regularised stages: 20 MB each
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-3 if how else 0.1
    config.optimizer.weight_decay = 1e-5
    config.schedule.name = "step"
    config.schedule.boundaries = (2.0,)
    config.train.num_epochs = 3.0
    config.eval.every_epochs = 3.0
    return config
