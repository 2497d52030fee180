"""What a compiled training step says of itself: laws of memory and of size, on networks small enough to compile."""

import math

import jax
import pytest

from jaxvid import models
from jaxvid.benchmarks.step_cost import question, step_cost
from jaxvid.models import cost

CLIP = (4, 16, 16)


def small(name="r3d_18", **options):
    """A network with a sixteenth of the papers' channels, at a small clip."""
    return step_cost(name, **{"clip": CLIP, "batch_size": 2, "num_classes": 5, "width": 4} | options)


@pytest.fixture(scope="module")
def plain():
    return small()


def test_the_line_says_what_was_compiled_and_where(plain):
    asked = question("r3d_18", clip=CLIP, batch_size=2, num_classes=5)
    assert {name: plain[name] for name in asked} == asked
    assert (plain["benchmark"], plain["device"]) == ("step_cost", jax.devices()[0].device_kind)
    assert set(plain["versions"]) >= {"jax", "jaxlib", "flax"}


def test_memory_is_the_state_the_batch_and_what_the_step_needs(plain):
    shapes = cost.variable_shapes(models.build("r3d_18", 5, width=4), CLIP)
    params, statistics = (
        sum(leaf.size for leaf in jax.tree.leaves(shapes[part])) for part in ("params", "batch_stats")
    )
    assert plain["params"] == params
    assert plain["parameter_bytes"] == 4 * params
    assert plain["state_bytes"] == 4 * (2 * params + statistics)
    batch = 2 * (math.prod(CLIP) * 3 + 4 + 4 + 1)
    # Beside them the number of the step and the run's key.
    assert 0 < plain["argument_bytes"] - plain["state_bytes"] - batch <= 32
    # The state is donated: what comes back takes its place, and only the metrics are new.
    assert plain["alias_bytes"] >= plain["state_bytes"]
    assert plain["temp_bytes"] >= plain["parameter_bytes"], "the gradients"
    assert plain["peak_bytes"] >= plain["state_bytes"] + batch + plain["parameter_bytes"]
    assert plain["peak_bytes"] - plain["temp_bytes"] - plain["argument_bytes"] == (
        plain["output_bytes"] - plain["alias_bytes"]
    )


def test_the_compilers_work_is_counted(plain):
    assert plain["instructions"] > 500
    assert plain["code_bytes"] is None or plain["code_bytes"] > 0  # a CPU does not tell
    assert plain["trace_cpu_seconds"] > 0
    assert plain["flops"] > 0
    assert plain["bytes_accessed"] > plain["argument_bytes"]


@pytest.mark.slow
def test_memory_grows_with_clips_and_frames():
    """Away from the gradients, temporaries are activations: twice as many clips or frames need twice as much."""
    shapes = {"plain": {}, "more clips": {"batch_size": 4}, "more frames": {"clip": (32, 32, 32)}}
    found = {name: small(**({"clip": (16, 32, 32)} | more)) for name, more in shapes.items()}
    activations = {name: line["temp_bytes"] - line["parameter_bytes"] for name, line in found.items()}
    assert activations["more clips"] / activations["plain"] == pytest.approx(2, abs=0.2)
    assert activations["more frames"] / activations["plain"] == pytest.approx(2, abs=0.2)
    assert found["more clips"]["flops"] / found["plain"]["flops"] == pytest.approx(2, abs=0.1)
    assert len({line["state_bytes"] for line in found.values()}) == 1


@pytest.mark.slow
def test_class_regularization_adds_less_than_three_per_cent():
    """To the step of r3d-50 at its training clip: operations, traffic and memory.

    At a small clip it would be more: mapping the classifier's weights costs the same at any.
    """
    plain, ours = (
        step_cost("r3d_50", optimize=False, conv="direct", regularized=regularized) for regularized in (False, True)
    )
    assert ours["params"] - plain["params"] == 512 * 960
    for name in ("flops", "bytes_accessed", "peak_bytes"):
        assert 1 <= ours[name] / plain[name] < 1.03, name


def test_unoptimised_machine_code_is_the_same_program(plain):
    unoptimised = small(optimize=False)
    for name in ("peak_bytes", "temp_bytes", "instructions", "flops"):
        assert unoptimised[name] == plain[name]
    assert not unoptimised["optimize"]


@pytest.mark.gpu
def test_remat_needs_less_memory_and_more_work():
    """Not on a CPU: there XLA merges what was to be computed again with the first computation."""
    kept, again = (small("r3d_34", clip=(16, 64, 64), batch_size=4, remat=remat) for remat in (False, True))
    assert again["temp_bytes"] < kept["temp_bytes"]
    assert again["flops"] > 1.1 * kept["flops"]
    assert again["state_bytes"] == kept["state_bytes"]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("r3d18", {}, "did you mean 'r3d_18'"),
        ("r3d_18", {"batch_size": 0}, "batch_size must be >= 1, received batch_size=0"),
        ("r3d_18", {"dtype": "float23"}, "dtype must be one of float32, bfloat16, float16"),
        ("r3d_18", {"width": 0}, "width must be"),
    ],
)
def test_what_cannot_be_compiled_is_one_sentence(name, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        step_cost(name, clip=CLIP, **options)
