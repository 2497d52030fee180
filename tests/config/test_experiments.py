"""The experiments of configs/: each loads, and those that are compared with a twin differ from it in one thing."""

from pathlib import Path

import pytest

from jaxvid.config import flatten, load

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"


def differing(ours, twin):
    ours, twin = (flatten(load(str(CONFIGS / source))) for source in (ours, twin))
    return {name: value for name, value in ours.items() if value != twin[name]}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.name)
def test_every_config_loads(path):
    load(str(path))


@pytest.mark.parametrize(
    ("ours", "twin"),
    [
        ("motion_class_regularization.py", "motion.py:r3d_18"),
        ("motion_class_regularization.py:srtg_r3d_18", "motion.py"),
        ("motion_class_regularization.py:mtnet_s", "mtnet.py"),
    ],
)
def test_class_regularization_from_scratch_differs_from_its_twin_in_nothing_else(ours, twin):
    assert differing(ours, twin) == {"model.class_regularization.enabled": True}


def test_class_regularization_is_added_to_the_runs_of_its_twin():
    ours = "ut_interaction_i3d_class_regularization.py"
    found = differing(f"{ours}:set1", "ut_interaction_i3d_head.py:set1")
    assert {name.split(".")[0] for name in found} == {"model", "finetune", "optimizer", "schedule", "train", "eval"}
    assert found["finetune.weights"] == "runs/ut-i3d-head/{fold}"
    assert found["finetune.trainable"] == ("class_regularization",)
    more = differing(f"{ours}:set1,last_blocks", f"{ours}:set1")
    assert more == {
        "finetune.trainable": ("class_regularization", "stage4", "head"),
        "optimizer.learning_rate": 1e-3,
    }
    for wrong in ("set3", "set1,blocks", "set1,last_blocks,last_blocks"):
        with pytest.raises(ValueError, match="the argument must be set1, set2 or both"):
            load(str(CONFIGS / f"{ours}:{wrong}"))
