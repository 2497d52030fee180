"""The stored table of costs: every network is in it, as its card has it, and the document is made of it."""

from pathlib import Path

from jaxvid import benchmarks
from jaxvid.benchmarks import cost_table
from jaxvid.models import MODELS, cards
from jaxvid.models.training_clips import training_clip_of

DOCUMENT = Path(__file__).parents[2] / "docs" / "cost.md"
STORED = Path(benchmarks.__file__).parent / "results" / "cost_cpu.jsonl"


def test_the_stored_lines_hold_every_network_as_its_card_does():
    lines = cost_table.read_lines(STORED)
    assert [row["model"] for row in lines] == list(MODELS), "a network is missing"
    for row in lines:
        assert row["params"] == cards.card(row["model"]).params
        assert row["parameter_bytes"] == 4 * row["params"]
        assert tuple(row["clip"]) == training_clip_of(row["model"])
        assert row["peak_bytes"] > row["state_bytes"] + row["parameter_bytes"]


def test_the_document_is_the_table_of_the_stored_lines():
    text = "\n".join(cost_table.to_markdown(cost_table.read_lines(STORED))) + "\n"
    assert DOCUMENT.read_text(encoding="utf-8") == text, "docs/cost.md is what `jaxvid models --cost --markdown` prints"
