"""SRTG r3d-18 from scratch on UT-Interaction, leave one sequence out (10 folds in each of two sets).

Protocol: M. S. Ryoo and J. K. Aggarwal, SDHA 2010; clip accuracy n/60 for each set. The data set is not ours to ship.
Seen with one seed: 25/60 in set 1, 26/60 in set 2 (chance 10/60); 54 clips are few for a network from scratch.

    jaxvid train --config=configs/ut_interaction.py:set1 --workdir=runs/ut-set1 --config.data.root=UT_INTERACTION

The argument is `set1`, `set2` or `both`.
"""

from jaxvid import config as jaxvid_config
from jaxvid.data.sources.ut_interaction import folds

SETS = {"set1": (1,), "set2": (2,), "both": (1, 2)}


def get_config(sets: str = "both"):
    if sets not in SETS:
        raise ValueError(f"configs/ut_interaction.py takes the argument set1, set2 or both, received {sets!r}.")
    config = jaxvid_config.base()
    config.model.name = "srtg_r3d_18"
    config.model.width = 16
    config.model.srtg.cell = "gru"
    config.model.dropout = 0.3
    config.data.name = "ut_interaction"
    config.data.train_split = "train-{fold}"
    config.data.eval_split = "test-{fold}"
    config.data.folds = folds(*SETS[sets])
    config.data.frame_stride = 4
    config.data.short_side = (54, 64)
    config.data.crop_size = 48
    config.data.flip = True  # who acts on whom is symmetric
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.weight_decay = 0.05
    config.schedule.warmup_epochs = 2.0
    config.train.num_epochs = 20.0
    config.train.batch_size = 9
    config.train.label_smoothing = 0.1
    config.eval.every_epochs = 20.0
    config.eval.num_clips = 3
    config.eval.short_side = 54
    config.eval.crop_size = 48
    config.eval.batch_size = 6
    return config
