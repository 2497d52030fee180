"""What stands in the picture of a confusion matrix."""

import itertools
import subprocess
import sys

import numpy as np
import pytest

from jaxvid.evaluation import draw_confusion
from jaxvid.evaluation.confusion import MAX_NAME, shortened


def matrix(K, seed=0):
    confusion = np.random.default_rng(seed).integers(0, 3, (K, K + 1))
    confusion[:, :K] += 20 * np.eye(K, dtype=int)
    return confusion


def cells(figure):
    return {text.get_position(): text.get_text() for text in figure.axes[0].texts}


def test_rows_are_shares_and_a_class_without_clips_is_empty():
    figure = draw_confusion(np.array([[3, 1, 0, 0], [0, 1, 0, 3], [0, 0, 0, 0]]), ["a", "b", "c"], title="t $x$")
    image = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(image[:2], [[0.75, 0.25, 0], [0, 0.25, 0]])
    assert image.mask[2].all()
    assert cells(figure) == {(0, 0): "0.75", (1, 0): "0.25", (1, 1): "0.25"}
    assert figure.axes[0].get_title() == "t $x$"


@pytest.mark.parametrize(
    ("K", "annotated", "named"), [(1, True, True), (2, True, True), (20, True, True), (21, False, True),
                                  (60, False, True), (61, False, False), (400, False, False)]
)  # fmt: skip
def test_numbers_and_names_as_long_as_they_can_be_read(tmp_path, K, annotated, named):
    names = [f"class-{k:03}" for k in range(K)]
    figure = draw_confusion(matrix(K), names)
    axes = figure.axes[0]
    assert bool(axes.texts) == annotated
    assert ([label.get_text() for label in axes.get_yticklabels()] == names) == named
    assert ([label.get_text() for label in axes.get_xticklabels()] == names) == named
    assert ("number" in axes.get_ylabel()) != named
    file = tmp_path / "confusion.png"
    figure.savefig(file, dpi=150)
    assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = figure.get_size_inches() * 150
    pixels = min(width - 480, height - 360) / K
    assert pixels >= 3, "a cell must be visible"
    assert max(width, height) <= 2200


def test_the_cells_of_neighbouring_names_do_not_overlap():
    figure = draw_confusion(matrix(60), [f"a rather long class name {k}" for k in range(60)])
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_yticklabels()]
    assert all(above.y0 >= below.y1 - 1 for above, below in itertools.pairwise(boxes))


def test_names_that_a_font_or_a_formula_would_spoil(tmp_path):
    names = ["costs $5 or $6", "$\\frac{", "手を振る", "two\nlines", " ", "x" * 60, "na\u00efve", "a\udcffb"]
    figure = draw_confusion(matrix(8), names)
    figure.savefig(tmp_path / "c.png")
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert shown == [
        "costs $5 or $6",
        "$\\frac{",
        "class 2",
        "class 3",
        "class 4",
        "x" * 16 + "…" + "x" * 15,
        "na\u00efve",
        "class 7",
    ]


def test_names_that_differ_at_their_ends_or_only_in_the_middle_stay_apart():
    names = [
        "turn_counterclockwise_one_flash",
        "turn_counterclockwise_two_flashes",
        *(f"{'a' * 30}{k}{'b' * 30}" for k in "xy"),
    ]
    axes = draw_confusion(matrix(4), names).axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == [
        "turn_counterclockwise_one_flash",
        "turn_countercloc…ise_two_flashes",
        "aaaaaaaaaaaaaa…bbbbbbbbbbbbb (2)",
        "aaaaaaaaaaaaaa…bbbbbbbbbbbbb (3)",
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == shown
    assert max(map(len, shown)) == MAX_NAME == 32


@pytest.mark.parametrize("K", [4, 18, 40, 60])
def test_long_names_lie_inside_the_picture(K):
    figure = draw_confusion(matrix(K), [f"turn_counterclockwise_{k}_and_then_flash" for k in range(K)], title="t")
    figure.draw_without_rendering()
    figure.draw_without_rendering()
    for label in (*figure.axes[0].get_xticklabels(), *figure.axes[0].get_yticklabels()):
        box = label.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0


@pytest.mark.parametrize(("name", "limit", "expected"), [("abcdef", 6, "abcdef"), ("abcdefg", 6, "abc…fg"),
                                                         ("abcdefg", 5, "ab…fg"), ("", 3, "")])  # fmt: skip
def test_a_name_is_shortened_in_its_middle(name, limit, expected):
    assert shortened(name, limit) == expected


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"int\[K K\+1\] with K=3, the number of class_names, received \[3, 3\]"):
        draw_confusion(np.zeros((3, 3), int), ["a", "b", "c"])


def test_no_window_system_and_no_pyplot_state():
    program = (
        "import sys, numpy as np; from jaxvid.evaluation import draw_confusion; "
        "draw_confusion(np.eye(2, 3, dtype=int), ['a', 'b']).savefig(sys.stdout.buffer, format='png'); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"\x89PNG")
