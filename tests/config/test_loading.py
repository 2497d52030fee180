"""Loading, overriding and refusing configs."""

import dataclasses
import json
import types

import pytest

from jaxvid import config as config_lib
from jaxvid.config import Config, SRTGConfig, base, load


@pytest.fixture
def config_file(tmp_path):
    def write(body: str, name: str = "experiment.py"):
        path = tmp_path / name
        path.write_text(f"from jaxvid.config import base\n\n{body}\n", encoding="utf-8")
        return str(path)

    return write


def test_a_file_starts_from_the_defaults_and_changes_fields(config_file):
    path = config_file("def get_config():\n    c = base()\n    c.optimizer.learning_rate = 0.5\n    return c")
    config = load(path)
    assert config.optimizer.learning_rate == 0.5
    assert dataclasses.replace(config, optimizer=Config().optimizer) == Config()


def test_the_argument_after_the_colon_reaches_get_config(config_file):
    path = config_file("def get_config(name='r3d_18'):\n    c = base()\n    c.model.name = name\n    return c")
    assert load(path).model.name == "r3d_18"
    assert load(f"{path}:r3d_34").model.name == "r3d_34"


def test_an_argument_that_nobody_takes_is_refused(config_file):
    path = config_file("def get_config():\n    return base()")
    with pytest.raises(ValueError, match=r"takes no argument, received 'smoke'"):
        load(f"{path}:smoke")


def test_overrides_are_parsed_by_the_type_of_the_field():
    config = load(
        base(),
        {
            "train.num_epochs": "3",
            "data.short_side": "(64, 80)",
            "data.flip": "true",
            "data.mirror": "left=right,up=down",
            "data.root": "5",
            "train.mesh": "(('data', 2), ('model', -1))",
            "eval.num_crops": "3",
        },
    )
    assert config.train.num_epochs == 3.0
    assert config.data.short_side == (64, 80)
    assert config.data.flip is True
    assert config.data.mirror == ("left=right", "up=down")
    assert config.data.root == "5"
    assert config.train.mesh == (("data", 2), ("model", -1))
    assert config.eval.num_crops == 3


def test_overriding_twice_does_not_change_the_source():
    source = base()
    load(source, {"model.srtg.cell": "gru"})
    assert load(source).model.srtg.cell == "lstm"


def test_a_module_and_a_mapping_are_sources_too():
    module = types.ModuleType("experiment")
    module.get_config = base
    assert load(module) == load({}) == Config()


def test_json_and_back():
    config = load(base(), {"data.mirror": "a=b", "model.srtg.gate": "cyclic"})
    assert load(json.loads(json.dumps(config_lib.to_dict(config)))) == config


def test_flatten_names_every_leaf_once():
    flat = config_lib.flatten(Config())
    assert flat["model.srtg.cell"] == "lstm"
    assert flat["train.mesh"] == (("data", -1),)
    assert not {"model", "model.srtg", "data"} & set(flat)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"optimizer.learning_rte": 1}, "did you mean optimizer.learning_rate?"),
        ({"optimizer.lr": 1}, "did you mean optimizer.learning_rate?"),
        ({"learning_rate": 1}, "did you mean optimizer.learning_rate?"),
        ({"modle.name": "x"}, "did you mean model?"),
        ({"optimizer.zzz": 1}, "the fields there are optimizer.base_batch_size"),
        ({"optimizer.learning_rate": "fast"}, "optimizer.learning_rate must be a finite number, received 'fast'."),
        ({"optimizer.learning_rate": float("nan")}, "must be a finite number"),
        ({"train.batch_size": 0.5}, "train.batch_size must be an integer, received 0.5."),
        ({"train.batch_size": True}, "train.batch_size must be an integer, received True."),
        ({"data.flip": "maybe"}, "data.flip must be true or false, received 'maybe'."),
        ({"model.dtype": "bf16"}, "Did you mean 'bfloat16'?"),
        ({"eval.num_crops": 2}, "eval.num_crops must be one of 1, 3, received 2."),
        ({"data.short_side": (1, 2, 3)}, "data.short_side must be a tuple (an integer, an integer)"),
        ({"data": 3}, "data is a group of fields"),
        ({"data.root.x": 3}, "data.root holds no fields"),
    ],
)
def test_a_wrong_field_or_type_is_one_sentence(overrides, sentence):
    with pytest.raises(ValueError) as caught:
        load(base(), overrides)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_field_inside_a_file_is_one_sentence(config_file):
    path = config_file("def get_config():\n    c = base()\n    c.optimizer.learning_rat = 0.5\n    return c")
    with pytest.raises(ValueError, match=r"learning_rat.*learning_rate"):
        load(path)
    path = config_file("def get_config():\n    c = base()\n    c.train.batch_size = 'many'\n    return c", "b.py")
    with pytest.raises(ValueError, match=r"batch_size|many|int"):
        load(path)


def test_a_file_that_is_absent_names_its_neighbour(config_file):
    path = config_file("def get_config():\n    return base()")
    with pytest.raises(ValueError, match=r"Did you mean '.*experiment.py'"):
        load(path.replace("experiment", "experimant"))
    with pytest.raises(ValueError, match="importable module"):
        load("no.such.module")
    with pytest.raises(ValueError, match=r"must define get_config\(\)"):
        load(config_file("x = 1", "empty.py"))


def test_srtg_fields_default_to_the_schema():
    assert load(base()).model.srtg == SRTGConfig()
