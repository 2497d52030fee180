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
        ({"model.dtype": "bf16"}, "received 'bf16'; did you mean 'bfloat16'?"),
        ({"eval.num_crops": 2}, "eval.num_crops must be one of 1, 3, received 2."),
        ({"data.short_side": (1, 2, 3)}, "data.short_side must be a tuple (an integer, an integer)"),
        ({"data": 3}, "data is a group of fields"),
        ({"data.root.x": 3}, "data.root holds no fields"),
        ({"train.batch_size.x": "3"}, "train.batch_size holds no fields, received train.batch_size.x='3'."),
        ({"train": {"batch_size": {"x": 1}}}, "train.batch_size holds no fields, received train.batch_size.x=1."),
        ({"train": {"batch_sise": 1}}, "train.batch_sise is not a field of the config (received 1)"),
        ({"batch_size": 3}, "did you mean train.batch_size or eval.batch_size?"),
        ({"train.crop_size": 3}, "did you mean data.crop_size or eval.crop_size?"),
        ({"bs": 3}, "did you mean train.batch_size or eval.batch_size?"),
        ({"train.srtg.gate": 3}, "did you mean model.srtg?"),
        ({"": 3}, "'' is not a field of the config (received 3); the fields there are checkpoint, data"),
        ({5: 3}, "5 is not a field of the config"),
        ({"train.batch_size": "{[]: 1}"}, "train.batch_size must be an integer, received '{[]: 1}'."),
        ({"optimizer.learning_rate": 10**400}, "optimizer.learning_rate must be a finite number, received 1000"),
        ({"eval.num_crops": 1.0}, "eval.num_crops must be one of 1, 3, received 1.0."),
        ({"data.mirror": ("a=b", 1)}, "data.mirror must be a tuple (text, ...), received ('a=b', 1)."),
        (["train.batch_size"], "hold texts 'field=value', received 'train.batch_size' in it."),
        ([3], "hold texts 'field=value', received 3 in it."),
        ("train.batch_size=3", "overrides must be a mapping or a list of 'field=value' texts"),
        (3, "overrides must be a mapping or a list of 'field=value' texts, received 3."),
    ],
)
def test_a_wrong_field_or_type_is_one_sentence(overrides, sentence):
    with pytest.raises(ValueError) as caught:
        load(base(), overrides)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def refused(path):
    """The sentence with which a config file is refused."""
    with pytest.raises(ValueError) as caught:
        load(path)
    assert type(caught.value) is ValueError
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 500
    return sentence


@pytest.mark.parametrize(
    ("statement", "sentence"),
    [
        ("c.train.batchsize = 3", "train.batchsize is not a field of the config (received 3); "
         "did you mean train.batch_size?"),
        ("c['train']['batchsize'] = 3", "train.batchsize is not a field of the config (received 3); "
         "did you mean train.batch_size?"),
        ("c.model.srtg.update(gat='cyclic')", "did you mean model.srtg.gate?"),
        ("c.trian.batch_size = 3", "trian is not a field of the config; did you mean train?"),
        ("c['trian']", "trian is not a field of the config; did you mean train?"),
        ("c.batch_size = 3", "did you mean train.batch_size or eval.batch_size?"),
        ("c.train.batch_size = 'many'", "train.batch_size must be an integer, received 'many'."),
        ("c.train.batch_size = True", "train.batch_size must be an integer, received True."),
        ("c.train.num_epochs = True", "train.num_epochs must be a finite number, received True."),
        ("c.data.short_side = 64", "data.short_side must be a tuple (an integer, an integer), received 64."),
        ("c.data.mean = (0.5, 0.5)", "received (0.5, 0.5)."),
        ("c.model.srtg.gate = 'cyclc'", "did you mean 'cyclic'?"),
        ("c.train = 3", "train must be a group of fields, received 3."),
        ("c.train = {'batchsize': 3}", "did you mean train.batch_size?"),
        ("c.train.batch_size = base()", "train.batch_size must be an integer, received "),
        ("int('x')", "invalid literal for int() with base 10: 'x'."),
        ("nope", "NameError: name 'nope' is not defined."),
        ("None.x", "AttributeError: 'NoneType' object has no attribute 'x'."),
        ("raise RuntimeError", "RuntimeError."),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'."),
    ],
)  # fmt: skip
def test_what_is_wrong_inside_a_file_is_one_sentence_with_its_line(config_file, statement, sentence):
    path = config_file(f"def get_config():\n    c = base()\n    {statement}\n    return c")
    found = refused(path)
    assert found.startswith(f"{path}:5: ")
    assert sentence in found


def test_a_file_may_name_itself(config_file):
    path = config_file("def get_config(name='a'):\n    raise ValueError('experiment.py takes a or b, received c.')")
    assert refused(path) == "experiment.py takes a or b, received c."


@pytest.mark.parametrize(
    ("body", "line", "sentence"),
    [
        ("def get_config(:\n    return base()", 3, "not valid Python: "),
        ("import no_such_module", 3, "ModuleNotFoundError: No module named 'no_such_module'."),
        ("x = 1\ny = 1 / 0", 4, "ZeroDivisionError: division by zero."),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_sentence_with_its_line(config_file, body, line, sentence):
    path = config_file(body)
    found = refused(path)
    assert found.startswith(f"{path}:{line}: ")
    assert sentence in found


@pytest.mark.parametrize(("returned", "shown"), [("None", "None"), ("{'train': {}}", "{'train': {}}"), ("base", "<f")])
def test_get_config_must_return_a_config(config_file, returned, shown):
    found = refused(config_file(f"def get_config():\n    return {returned}"))
    assert f"get_config() must return the config that it made of jaxvid.config.base(), received {shown}" in found


def test_another_config_dict_is_judged_by_the_schema_too(config_file):
    body = "from ml_collections import ConfigDict\n\ndef get_config():\n    return ConfigDict({'train': {'sed': 1}})"
    path = config_file(body)
    assert refused(path) == f"{path}: train.sed is not a field of the config (received 1); did you mean train.seed?"


def test_get_config_and_its_argument_must_be_there(config_file):
    path = config_file("get_config = 3")
    assert refused(path) == f"{path} must define the function get_config(), and does not."
    path = config_file("def get_config(name):\n    return base()")
    assert refused(path) == f"{path} needs an argument after a colon ({path}:ARGUMENT), received none."


def test_a_module_that_cannot_be_imported_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "jaxvid_test_broken.py").write_text("import no_such_module", encoding="utf-8")
    (tmp_path / "jaxvid_test_raises.py").write_text("1 / 0", encoding="utf-8")
    assert refused("jaxvid_test_broken") == (
        "jaxvid_test_broken: ModuleNotFoundError: No module named 'no_such_module'."
    )
    assert refused("jaxvid_test_raises") == "jaxvid_test_raises: ZeroDivisionError: division by zero."
    monkeypatch.chdir(tmp_path)
    assert refused("./jaxvid_test_raises").endswith("; did you mean 'jaxvid_test_raises.py'?")


def test_overrides_may_be_dotted_nested_or_texts():
    expected = load({}, {"train.batch_size": 4, "model.srtg.gate": "cyclic"})
    assert (expected.train.batch_size, expected.model.srtg.gate) == (4, "cyclic")
    assert load({}, {"train": {"batch_size": 4}, "model": {"srtg": {"gate": "cyclic"}}}) == expected
    assert load({}, {"train": {"batch_size": "4"}, "model.srtg": {"gate": "cyclic"}}) == expected
    assert load({}, ["train.batch_size=4", "model.srtg.gate=cyclic"]) == expected
    assert load({}, ["data.mirror=left=right"]).data.mirror == ("left=right",)


def test_a_frozen_config_is_a_source_too():
    config = load({}, {"train.batch_size": 4})
    assert load(config) == config
    assert load(config, {"train.seed": 1}).train == dataclasses.replace(config.train, seed=1)


def test_a_group_of_the_source_must_be_a_group():
    with pytest.raises(ValueError, match=r"^train must be a group of fields, received 3\.$"):
        load({"train": 3}, {"train.batch_size": 4})


def test_a_file_that_is_absent_names_its_neighbour(config_file):
    path = config_file("def get_config():\n    return base()")
    with pytest.raises(ValueError, match=r"did you mean '.*experiment.py'"):
        load(path.replace("experiment", "experimant"))
    with pytest.raises(ValueError, match="importable module"):
        load("no.such.module")
    with pytest.raises(ValueError, match=r"must define the function get_config\(\)"):
        load(config_file("x = 1", "empty.py"))


def test_srtg_fields_default_to_the_schema():
    assert load(base()).model.srtg == SRTGConfig()
