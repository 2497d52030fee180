"""The model table: its figures, its forms, and the README's copy of it."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from jaxvid import models
from jaxvid.models import MODELS, cards, cost, figures

README = Path(__file__).parents[2] / "README.md"


def test_every_model_has_a_card_in_the_order_of_the_registry():
    assert [row["name"] for row in cards.table()] == list(MODELS)
    assert set(figures.COUNTED) <= set(MODELS)
    assert set(figures.PRINTED) <= set(MODELS)


# Counts of the reference implementations, which tests/models/test_cost.py compares with fresh counts of ours.
_ROWS = json.loads((Path(__file__).parents[1] / "golden" / "model_counts.json").read_text())
PUBLISHED = {
    name: row
    for row in _ROWS
    if row["shape"][2:] == [*cards.clip_of(name := row["tag"].lower().replace("mtnet", "mtnet_ref"))] and name in MODELS
}


DEEP = ("_101", "_r101", "_152", "_161", "_169", "_200", "_201", "x3d_l", "x3d_xl", "mtnet")


def _unless_deep(name):
    slow = name.startswith("srtg_") or any(part in name for part in DEEP)
    return pytest.param(name, marks=pytest.mark.slow if slow else ())


def _unless_counted_again(name):
    again = any(part in name for part in DEEP) and " at " in figures.PRINTED[name].remark
    return pytest.param(name, marks=pytest.mark.slow if again else ())


# Where SRTG is counted in a shallow network, a deep one of the family adds nothing but a minute of tracing.
RECOUNTED = [
    name
    for name in figures.COUNTED
    if name not in PUBLISHED and not (name.startswith("srtg_") and any(part in name for part in DEEP))
]


@pytest.mark.parametrize("name", [name for name in figures.COUNTED if name in PUBLISHED])
def test_stored_counts_are_the_published_ones(name):
    params, macs = figures.COUNTED[name]
    assert params == PUBLISHED[name]["params"]
    assert macs / 1e9 == pytest.approx(PUBLISHED[name]["gmacs"], rel=1e-5, abs=5e-5)  # four decimals


@pytest.mark.parametrize("name", [_unless_deep(name) for name in RECOUNTED])
def test_stored_counts_are_fresh(name):
    assert cards.count(name) == figures.COUNTED[name]


def test_card_of_a_network_without_stored_counts_is_counted(monkeypatch):
    stored = cards.card("r3d_18")
    monkeypatch.setattr(cards, "COUNTED", {})
    assert cards.card("r3d_18") == stored
    assert (stored.params, stored.macs, stored.clip) == (33_371_472, 25_304_965_120, (16, 224, 224))


@pytest.mark.parametrize("name", [_unless_counted_again(name) for name in figures.PRINTED])
def test_printed_figures_agree_or_carry_a_remark(name):
    row = cards.card(name)
    assert row.source
    if row.paper_params and "parameters are" not in row.remark:
        digits = len(row.paper_params.partition(".")[2])
        # Some tables round, others cut off.
        assert abs(row.params / 1e6 - float(row.paper_params)) < 10.0**-digits
    if row.paper_gflops is None:
        return
    printed = float(row.paper_gflops) * 1e9
    if row.remark.startswith("GFLOPs are multiply-adds"):
        at = re.match(r"GFLOPs are multiply-adds at (\d+)x(\d+)x(\d+)", row.remark)
        clip = tuple(map(int, at.groups())) if at else row.clip
        macs = cost.count_macs(models.build(name, cards.NUM_CLASSES), clip) if at else row.macs
        assert printed == pytest.approx(macs, rel=0.02 if "normalisation counted" in row.remark else 0.01)
    elif re.search("GFLOPs are twice the multiply-adds(?! of)", row.remark):
        assert printed == pytest.approx(2 * row.macs, rel=0.015)
    elif "r2plus1d_50_hara" in row.remark:
        assert printed == pytest.approx(2 * cards.card("r2plus1d_50_hara").macs, rel=0.01)
    elif "multiply-adds of" in row.remark:
        assert printed == pytest.approx(cards.card(row.remark.split()[-1]).macs, rel=0.01)
    else:
        assert "not reproduced" in row.remark
        assert all(abs(printed / (k * row.macs) - 1) > 0.03 for k in (1, 2))


def test_json_is_a_list_of_objects():
    rows = json.loads(cards.to_json())
    assert len(rows) == len(MODELS)
    assert rows[0] == {
        "name": "r3d_18",
        "params": 33_371_472,
        "macs": 25_304_965_120,
        "clip": [16, 224, 224],
        "num_classes": 400,
        "paper_params": None,
        "paper_gflops": None,
        "source": "Stergiou & Poppe 2021, the authors' code",
        "remark": "",
    }
    assert {field.name for field in dataclasses.fields(cards.Card)} == set(rows[0])


def test_markdown_and_text_show_the_same_row():
    assert (
        "| srtg_r3d_50 | 56,904,656 | 26.498 | 16x224x224 | 56.9 | 52.7 | Stergiou, thesis 2022, tables 4.2 and 6.2 "
        "| GFLOPs are twice the multiply-adds |"
    ) in cards.to_markdown(["srtg_r3d_50"]).splitlines()
    lines = cards.to_text(["srtg_r3d_50", "r3d_18"]).splitlines()
    assert lines[3].split()[:6] == ["srtg_r3d_50", "56,904,656", "26.498", "16x224x224", "56.9", "52.7"]
    assert lines[-1] == "srtg_r3d_50: GFLOPs are twice the multiply-adds"
    assert lines[2].index("source") == lines[3].index("Stergiou")


def test_put_into_replaces_the_block_only():
    document = f"before\n{cards.BEGIN}\nold\n{cards.END}\nafter\n"
    assert cards.put_into(document) == f"before\n{cards.BEGIN}\n{cards.to_markdown()}\n{cards.END}\nafter\n"
    assert cards.put_into(cards.put_into(document)) == cards.put_into(document)
    with pytest.raises(ValueError, match="must hold the markers"):
        cards.put_into("nothing")


def test_readme_holds_the_table():
    text = README.read_text()
    assert cards.put_into(text) == text, "put the output of `jaxvid models --markdown` between the markers"
