"""Ranges and combinations that cannot work."""

import pytest

from jaxvid.config import base, load


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"train.batch_size": 0}, "train.batch_size must be >= 1, received train.batch_size=0."),
        ({"train.seed": -1}, "train.seed must be in [0, 2**32), received train.seed=-1."),
        ({"train.seed": 2**32}, "train.seed must be in [0, 2**32), received train.seed=4294967296."),
        ({"train.batch_size": 2**31}, "train.batch_size must be < 2**31, received train.batch_size=2147483648."),
        ({"data.num_workers": -1}, "data.num_workers must be >= 0"),
        ({"model.dropout": 1.0}, "model.dropout must be in [0, 1)"),
        ({"optimizer.learning_rate": 0.0}, "optimizer.learning_rate must be > 0"),
        ({"data.cache_gib": -0.5}, "data.cache_gib must be >= 0, received data.cache_gib=-0.5."),
        ({"data.cache_gib": float("inf")}, "data.cache_gib must be a finite number, received inf."),
        ({"data.cache_gib": float("nan")}, "data.cache_gib must be a finite number, received nan."),
        ({"data.max_bad_fraction": 1.5}, "data.max_bad_fraction must be in [0, 1]"),
        ({"model.srtg.num_layers": 3}, "model.srtg.num_layers must be 1 or 2"),
        ({"data.std": (0.0, 1.0, 1.0)}, "data.std must be greater than 0"),
        ({"data.short_side": (80, 72)}, "data.short_side must be a pair (low, high)"),
        ({"schedule.name": "step", "schedule.boundaries": (2.0, 1.0)}, "schedule.boundaries must be increasing"),
        (
            {"model.class_regularization.enabled": True, "model.class_regularization.affection_rates": (0.9, 1.1)},
            "model.class_regularization.affection_rates must be in [0, 1], received",
        ),
        ({"data.mirror": ("left",)}, 'data.mirror must be pairs written "a=b"'),
    ],
)
def test_ranges(overrides, sentence):
    with pytest.raises(ValueError) as caught:
        load(base(), overrides)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({"data.crop_size": 100}, ("data.crop_size=100", "data.short_side=(72, 72)")),
        ({"eval.crop_size": 100}, ("eval.crop_size=100", "eval.short_side=72")),
        ({"model.name": "r3d_18", "model.srtg.cell": "gru"}, ("model.srtg.cell='gru'", "model.name='r3d_18'")),
        ({"model.srtg.gate_gradient": "straight_through"}, ("model.srtg.gate_gradient", "model.srtg.gate='none'")),
        ({"optimizer.name": "adamw", "optimizer.nesterov": True}, ("optimizer.nesterov", "optimizer.name='adamw'")),
        ({"schedule.name": "step"}, ("schedule.boundaries", "()")),
        ({"schedule.boundaries": (1.0,)}, ("schedule.boundaries=(1.0,)", "schedule.name='cosine'")),
        ({"schedule.warmup_epochs": 99.0}, ("schedule.warmup_epochs=99.0", "train.num_epochs=10.0")),
        ({"train.mesh": (("model", -1),)}, ("train.mesh", "'data'")),
        ({"train.mesh": (("data", -1), ("model", -1))}, ("train.mesh", "at most one -1")),
        ({"data.dictionary": "labels.json"}, ("data.dictionary='labels.json'", "data.name='motion'")),
        ({"data.missing": "error"}, ("data.missing='error'", "data.name='motion'")),
        (
            {"model.class_regularization.scope": "all"},
            ("model.class_regularization.scope='all'", "model.class_regularization.enabled=true"),
        ),
        ({"data.folds": ("a", "b")}, ("data.folds", "data.train_split='train'")),
        ({"data.modality": "flow", "data.color": "BGR"}, ("data.color='BGR'", "data.modality='flow'")),
    ],
)
def test_combinations_name_both_fields(overrides, names):
    with pytest.raises(ValueError) as caught:
        load(base(), overrides)
    assert all(name in str(caught.value) for name in names)
    assert "\n" not in str(caught.value)


def test_what_fits_passes():
    assert load(base(), {"train.seed": 2**32 - 1}).train.seed == 2**32 - 1
    load(base(), {"schedule.name": "step", "schedule.boundaries": (1.0, 2.0), "model.srtg.gate": "cyclic"})
    load(base(), {"data.folds": ("a",), "data.train_split": "train-{fold}", "data.eval_split": "test-{fold}"})
