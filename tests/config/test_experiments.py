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
        "finetune.weights": "runs/ut-i3d-cr/{fold}",
        "finetune.trainable": ("class_regularization", "stage4", "head"),
        "optimizer.learning_rate": 1e-3,
    }
    for wrong in ("set3", "set1,blocks", "set1,last_blocks,last_blocks"):
        with pytest.raises(ValueError, match="the argument must be set1, set2 or both"):
            load(str(CONFIGS / f"{ours}:{wrong}"))


@pytest.mark.parametrize(
    ("ours", "twin"),
    [
        ("motion_u2s.py", "motion_fine.py"),
        ("motion_u2s.py:tsm_r18,soft", "motion_fine.py:tsm_r18"),
        ("motion_u2s.py:srtg_r3d_18", "motion_fine.py:srtg_r3d_18"),
        ("digits_u2s.py", "digits.py"),
    ],
)
def test_the_first_stage_of_u2s_is_its_twin(ours, twin):
    found = differing(ours, twin)
    (stages,) = [value for name, value in found.items() if name == "train.stages"]
    assert stages[0] == ("universal", load(str(CONFIGS / twin)).train.num_epochs, 1.0)
    assert {name for name in found if not name.startswith("model.u2s.")} == {"train.stages"}


def test_u2s_as_in_the_paper():
    given = {name: load(str(CONFIGS / f"u2s.py:{name}")) for name in ("hmdb51", "ucf101", "folder")}
    assert [config.model.u2s.top_accuracy for config in given.values()] == [0.90, 0.95, 0.85]
    assert [config.data.eval_split for config in given.values()] == ["test", "test", "val"]
    for config in given.values():
        assert config.model.name == "u2s_resnet_50"
        data = config.data
        assert (data.num_frames, data.sampler, data.short_side, data.crop_size) == (18, "uniform", (240, 240), 224)
        assert not data.flip
        optimizer = config.optimizer
        assert (optimizer.name, optimizer.learning_rate, optimizer.momentum, optimizer.nesterov) == (
            "sgd", 1e-3, 0.9, False)  # fmt: skip
        assert (optimizer.weight_decay, config.train.batch_size) == (1e-4, 20)
        assert (config.schedule.name, config.schedule.boundaries, config.schedule.factor) == ("step", (7.0, 12.0), 0.1)
        assert [(name, factor) for name, _, factor in config.train.stages] == [
            ("universal", 1.0), ("specific", 1.0), ("joint", 0.1)]  # fmt: skip
        assert config.model.u2s.regularization == 0.5
    assert load(str(CONFIGS / "u2s.py:ucf101,no_mask")).model.u2s.variant == "no_mask"
    with pytest.raises(ValueError, match=r"takes the argument hmdb51, ucf101, folder, received 'hmdb'"):
        load(str(CONFIGS / "u2s.py:hmdb"))
