"""Names, options and their errors."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.models import MODELS, build
from jaxvid.models.options import SRTGOptions


def test_names():
    for depth in (18, 34, 50, 101, 152, 200):
        assert {f"r3d_{depth}", f"r2plus1d_{depth}", f"srtg_r3d_{depth}", f"srtg_r2plus1d_{depth}"} <= set(MODELS)
        assert f"resnet3d_{depth}_hara" in MODELS
    assert {"wide_r3d_50", "wide_r3d_101", "srtg_wide_r3d_50", "wide_resnet3d_50_hara", "r2plus1d_50_hara"} <= set(
        MODELS
    )
    others = ("i3d", "mtnet", "densenet")  # no residual networks, or with a recurrence of their own
    residual = {name for name in MODELS if not name.startswith("srtg_") and not any(part in name for part in others)}
    assert {f"srtg_{name}" for name in residual} == {name for name in MODELS if name.startswith("srtg_")}
    assert {"resnext3d_50", "resnext3d_101", "i3d", "mfnet", "srtg_mfnet"} <= set(MODELS)


def test_models_is_read_only():
    with pytest.raises(TypeError):
        MODELS["mine"] = None


def test_builder_and_build_agree():
    assert MODELS["r3d_34"](7, width=8) == build("r3d_34", num_classes=7, width=8)


def test_options_reach_the_module():
    srtg = {"cell": "gru", "num_layers": 1, "gate": "cyclic", "gate_gradient": "straight_through", "init": "torch"}
    plain = {"width": 8, "dropout": 0.5, "conv": "folded"}
    model = build("srtg_r2plus1d_50", 7, dtype="bfloat16", placement="mid", **plain, **srtg)
    assert model.num_classes == 7
    assert {option: getattr(model, option) for option in plain} == plain
    assert model.dtype == jnp.bfloat16
    assert model.srtg == SRTGOptions("gru", 1, "cyclic", "straight_through", "torch", "mid")
    assert build("r3d_18", 7, dtype=jnp.bfloat16).dtype == jnp.bfloat16
    assert build("r3d_18", 7).srtg is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("r3d18", {}, r"received 'r3d18'; did you mean 'r3d_18'"),
        ("nothing alike", {}, r"must be one of jaxvid.models.MODELS, received 'nothing alike'\.$"),
        ("r3d_18", {"widht": 8}, r"the options of 'r3d_18' .* received 'widht'; did you mean 'width'"),
        ("srtg_r3d_18", {"cel": "gru"}, r"received 'cel'; did you mean 'cell'"),
        ("r3d_18", {"cell": "gru"}, r"cell may only be set for a model whose name starts with srtg_, .*'srtg_r3d_18'"),
        ("srtg_r3d_18", {"cell": "lstn"}, r"cell must be one of lstm, .* received cell='lstn'; did you mean 'lstm'"),
        ("srtg_r3d_18", {"placement": "finl"}, r"placement must be one of start, .* did you mean 'final'"),
        ("srtg_r3d_18", {"num_layers": 3}, r"num_layers must be one of 1, 2, received num_layers=3\."),
        ("srtg_r3d_18", {"num_layers": True}, r"received num_layers=True\."),
        ("srtg_r3d_18", {"gate": "open"}, r"gate must be one of none, cyclic"),
        ("srtg_r3d_18", {"gate_gradient": "straight_through"}, r"only be set with gate='cyclic', .* gate='none'\."),
        ("srtg_r3d_18", {"init": "zeros"}, r"init must be one of identity, torch"),
        ("r3d_18", {"width": 0}, r"width must be a whole number >= 1, received width=0\."),
        ("r3d_18", {"width": 1.5}, r"received width=1\.5\."),
        ("r3d_18", {"dropout": 1.0}, r"dropout must be in \[0, 1\), received dropout=1\.0\."),
        ("r3d_18", {"dropout": "x"}, r"dropout must be in \[0, 1\), received dropout='x'\."),
        ("r3d_18", {"dropout": None}, r"dropout must be in \[0, 1\), received dropout=None\."),
        ("r3d_18", {"width": "8"}, r"width must be a whole number >= 1, received width='8'\."),
        ("r3d_18", {"conv": "fold"}, r"conv must be one of auto, direct, folded, .* did you mean 'folded'"),
        ("r3d_18", {"dtype": "float"}, r"dtype must be one of float32, .* received dtype='float64'"),
        ("r3d_18", {"dtype": "bf16"}, r"dtype must be one of float32, bfloat16, float16, received dtype='bf16'"),
        ("r3d_18", {"expansion": 4}, r"expansion must be 1 where the blocks are simple .* for 'r3d_18'\."),
        ("r3d_50", {"expansion": 0}, r"expansion must be a whole number >= 1, received expansion=0\."),
    ],
)
def test_errors_name_the_rule_and_the_value(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, 10, **options)


@pytest.mark.parametrize("num_classes", [0, 2.0, True])
def test_num_classes_is_a_count(num_classes):
    with pytest.raises(
        ValueError, match=rf"num_classes must be a whole number >= 1, received num_classes={num_classes}"
    ):
        build("r3d_18", num_classes)


def test_numbers_of_numpy_are_numbers():
    model = build("r3d_50", np.int32(10), width=np.int64(8), expansion=np.int16(2), dropout=np.float32(0.5))
    assert model == build("r3d_50", 10, width=8, expansion=2, dropout=0.5)
    assert {type(value) for value in (model.num_classes, model.width, model.expansion)} == {int}


def test_expansion_one_is_allowed_everywhere():
    assert build("r3d_18", 10, expansion=1) == build("r3d_18", 10)
    assert build("resnet3d_50_hara", 10).expansion == 4
    assert build("resnet3d_50_hara", 10, expansion=1).expansion == 1
