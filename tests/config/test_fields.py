"""The config that a file changes: its assignments, its copies, and the names it suggests."""

import copy
import pickle

import pytest

from jaxvid.config import Config, base, load
from jaxvid.config.fields import UnknownFieldError, nearest, show


def test_an_assignment_is_judged_where_it_is_made():
    config = base()
    with pytest.raises(ValueError, match=r"^train\.batch_size must be an integer, received 2\.5\.$"):
        config.train.batch_size = 2.5
    assert config.train.batch_size == Config().train.batch_size


def test_an_int_serves_as_a_float_and_a_list_as_a_tuple():
    config = base()
    config.train.num_epochs = 3
    config.data.mirror = ["a=b"]
    assert type(config.train.num_epochs) is float
    assert config.data.mirror == ("a=b",)


def test_a_group_assigned_from_a_mapping_keeps_the_other_fields():
    config = base()
    config.model = {"width": 16, "srtg": {"gate": "cyclic"}}
    loaded = load(config)
    assert (loaded.model.width, loaded.model.srtg.gate) == (16, "cyclic")
    assert loaded.model.name == Config().model.name
    with pytest.raises(ValueError, match=r"did you mean model\.srtg\.gate"):
        config.model.srtg.gat = "none"


def test_reading_an_unknown_field_is_an_attribute_error_that_names_the_nearest():
    config = base()
    assert not hasattr(config.train, "batchsize")
    assert config.train.get("batchsize", 5) == 5
    with pytest.raises(UnknownFieldError) as caught:
        _ = config.train.batchsize
    assert str(caught.value) == "train.batchsize is not a field of the config; did you mean train.batch_size?"
    with config.unlocked():
        del config.train
    with pytest.raises(UnknownFieldError, match="train was deleted"):
        _ = config.train


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c)),
                                       lambda c: c.copy_and_resolve_references()])  # fmt: skip
def test_a_copy_is_equal_independent_and_as_strict(duplicate):
    config = base()
    config.model.srtg.gate = "cyclic"
    other = duplicate(config)
    assert load(other) == load(config)
    other.model.srtg.gate = "none"
    assert config.model.srtg.gate == "cyclic"
    with pytest.raises(ValueError, match=r"did you mean model\.srtg\.gate"):
        other.model.srtg.gat = "none"


def test_a_reference_follows_the_field_that_it_refers_to():
    config = base()
    config.eval.batch_size = config.train.get_ref("batch_size")
    config.train.batch_size = 5
    assert load(config).eval.batch_size == 5
    assert load(config.copy_and_resolve_references()).eval.batch_size == 5


@pytest.mark.parametrize(
    ("part", "siblings", "prefix", "sentence"),
    [
        ("batch_size", ["model", "train"], "", "did you mean train.batch_size or eval.batch_size?"),
        ("lr", ["learning_rate", "momentum"], "optimizer.", "did you mean optimizer.learning_rate?"),
        ("lr", ["model"], "", "did you mean optimizer.learning_rate?"),
        ("num_worker", ["name"], "model.", "did you mean data.num_workers?"),
        ("zzz", ["b", "a"], "x.", "the fields there are x.a, x.b."),
    ],
)
def test_the_nearest_name(part, siblings, prefix, sentence):
    assert nearest(part, siblings, prefix) == sentence


def test_what_is_shown_is_one_short_line():
    assert show("a\nb") == r"'a\nb'"
    assert "\n" not in show(base())
    assert len(show("x" * 1000)) == 200
