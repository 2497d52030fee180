"""require_choice: silent, or one sentence."""

import pytest

from jaxvid.ops.choices import require_choice


def test_a_choice_passes():
    require_choice("cell", "gru", {"lstm": 4, "gru": 3})


def test_nearest_name_is_offered_only_where_one_is_near():
    with pytest.raises(ValueError, match=r"^cell must be one of lstm, gru, received .*'gru_'; did you mean 'gru'\?$"):
        require_choice("cell", "gru_", ("lstm", "gru"))
    with pytest.raises(ValueError, match=r"^cell must be one of lstm, gru, received cell='xyz'\.$"):
        require_choice("cell", "xyz", ("lstm", "gru"))
    with pytest.raises(ValueError, match=r"received cell=None\.$"):
        require_choice("cell", None, ("lstm", "gru"))


def test_many_names_are_counted_and_the_nearest_is_named():
    names = [f"net_{k}" for k in range(30)]
    with pytest.raises(
        ValueError, match=r"^model must be one of 30 names, received model='net7'; did you mean 'net_7'"
    ):
        require_choice("model", "net7", names)
