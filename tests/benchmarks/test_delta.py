"""The picture of MTNet's cost over delta."""

import pytest

from jaxvid.benchmarks.delta import draw_delta
from jaxvid.models.delta_law import PRINTED, Cost


def test_curves_are_relative_to_the_papers_choice():
    figure = draw_delta({"printed": PRINTED, "ours": {1.0: Cost(6.0, 8.0), 7 / 8: Cost(3.0, 2.0)}})
    macs, params = figure.axes
    assert [list(line.get_ydata()) for line in params.lines][1] == [1.0, 2.0]
    assert [list(line.get_ydata()) for line in macs.lines][1] == [1.0, 4.0]
    assert macs.lines[0].get_ydata()[-1] == pytest.approx(10.8 / 8.8)
    assert [text.get_text() for text in macs.get_legend().get_texts()] == ["printed", "ours"]


@pytest.mark.parametrize("curves", [{}, {"ours": {1.0: Cost(6.0, 8.0)}}])
def test_a_curve_without_the_papers_choice_is_refused(curves):
    with pytest.raises(ValueError, match="entry for delta=7/8"):
        draw_delta(curves)
