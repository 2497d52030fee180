"""The tests and intervals of two networks on the same clips, by hand, by law, and as two papers print them."""

import math

import numpy as np
import pytest

from jaxvid.evaluation.stats import clips_needed, difference_interval, holm, mcnemar

# Stergiou's thesis, table 6.6, K-400: a, b, c, d, the statistic and the p-value as printed, where the rows of the table
# are the network with Class Regularisation and its columns the original: b counts what only the former gets right.
# The p-values are printed with their last digit cut off, not rounded (5.445 is 1.96e-2).
THESIS = {
    "a ResNet50 3D": (8112, 659, 576, 4314, "5.445", "1.9e-02"),
    "b ResNet50 (2+1)D": (8253, 654, 557, 4197, "7.610", "5.8e-03"),
    "c wide-ResNet50 3D": (8216, 703, 527, 4215, "24.898", "6.0e-07"),
    "d ResNet-101 3D": (8775, 473, 134, 4279, "188.211", "7.8e-43"),
    "e MTNet_S": (9516, 878, 707, 2560, "18.233", "1.9e-05"),
    "f MTNet_M": (9931, 678, 538, 2514, "15.889", "6.7e-05"),
    "g MTNet_L": (10176, 614, 496, 2375, "12.332", "4.4e-04"),
}
# The table's margins: right with Class Regularisation, right without it.
THESIS_RIGHT = {"a": (8771, 8688), "b": (8904, 8810), "c": (8919, 8743), "d": (9248, 8909), "e": (10394, 10223),
                "f": (10609, 10469), "g": (10790, 10672)}  # fmt: skip

# "Class Regularization" (MDPI), table 4: a, b, c, d on UCF-101 and on HMDB-51, and what follows from them; the table
# itself prints nothing but these counts. Rows are without and columns with the regularisation (a to c), or a block and
# the next deeper one (d to f): b counts what only the former gets right.
MDPI = {
    "a UCF": (773, 23, 36, 83, 2.441, 0.118),
    "a HMDB": (924, 35, 47, 527, 1.476, 0.224),
    "b UCF": (764, 34, 51, 65, 3.012, 0.083),
    "b HMDB": (895, 49, 68, 518, 2.769, 0.096),
    "c UCF": (824, 15, 27, 51, 2.881, 0.090),
    "c HMDB": (887, 96, 118, 429, 2.061, 0.151),
    "d UCF": (18, 0, 35, 861, 33.029, 9.1e-9),
    "d HMDB": (30, 2, 89, 1411, 81.275, 2.0e-19),
    "e UCF": (52, 1, 730, 131, 725.012, 1.1e-159),
    "e HMDB": (104, 5, 829, 592, 812.145, 1.2e-178),
    "f UCF": (772, 10, 37, 95, 14.383, 1.5e-4),
    "f HMDB": (930, 3, 38, 559, 28.195, 1.1e-7),
}


def cut(value, digits=2):
    """``1.96e-02 -> '1.9e-02'``: further digits are dropped."""
    exponent = math.floor(math.log10(value))
    return f"{math.floor(value / 10.0 ** (exponent - digits + 1)) / 10 ** (digits - 1):.{digits - 1}f}e{exponent:+03}"


@pytest.mark.parametrize("row", THESIS)
def test_the_seven_rows_of_the_thesis(row):
    *_, b, c, _, chi2, p = THESIS[row]
    test = mcnemar(b, c)
    assert f"{test.chi2:.3f}" == chi2
    assert cut(test.p_value) == p
    assert test.exact_p_value < 0.05
    assert test.exact_p_value == pytest.approx(test.p_value, rel=0.5), "at such counts the two nearly agree"


@pytest.mark.parametrize("row", THESIS)
def test_the_counts_of_the_thesis_fit_their_margins(row):
    a, b, c, d, *_ = THESIS[row]
    assert a + b + c + d == 13661
    with_it, without = THESIS_RIGHT[row[0]]
    assert a + c == without
    # 8253 + 654 is 8907: table 6.6b prints a total that its counts do not make, nor do 8904 and 4754 make 13661.
    assert a + b == (8907 if row[0] == "b" else with_it)


@pytest.mark.parametrize("row", MDPI)
def test_the_panels_of_the_mdpi_table(row):
    _, b, c, _, chi2, p = MDPI[row]
    test = mcnemar(b, c)
    assert test.chi2 == pytest.approx(chi2, abs=5e-4)
    assert test.p_value == pytest.approx(p, rel=0.05 if p < 1e-3 else 0, abs=0 if p < 1e-3 else 5e-4)
    # The text says that the marginal probabilities are not homogeneous; of the panels a, b and c that does not follow.
    assert (test.p_value < 0.05) == (test.exact_p_value < 0.05) == (row[0] in "def")


def test_what_does_not_follow_from_the_counts_of_the_mdpi_table():
    """Its panels count between 914 and 917 clips of UCF-101 (split 1 has 3783) and 1530 to 1533 of HMDB-51 (1530)."""
    clips = {row: sum(counts[:4]) for row, counts in MDPI.items()}
    assert [clips[row] for row in MDPI if row.endswith("UCF")] == [915, 914, 917, 914, 914, 914]
    assert [clips[row] for row in MDPI if row.endswith("HMDB")] == [1533, 1530, 1530, 1532, 1530, 1530]
    # A block's right clips appear in two panels, once as the deeper block and once as the shallower one.
    for data, second, third, whole in (("UCF", (53, 53), (782, 782), (809, 809)),
                                       ("HMDB", (119, 109), (933, 933), (968, 971))):  # fmt: skip
        block = {panel: MDPI[f"{panel} {data}"] for panel in "adef"}
        deeper = {panel: a + c for panel, (a, _, c, *_) in block.items()}
        shallower = {panel: a + b for panel, (a, b, *_) in block.items()}
        assert (deeper["d"], shallower["e"]) == second
        assert (deeper["e"], shallower["f"]) == third
        assert (deeper["f"], deeper["a"]) == whole


# By hand.


@pytest.mark.parametrize(
    ("b", "c", "chi2", "exact"),
    [
        (0, 0, 0.0, 1.0),  # no clip tells them apart
        (1, 0, 0.0, 1.0),  # |b - c| - 1 = 0; a coin falls on some side: 2 / 2
        (5, 0, 16 / 5, 2 / 32),  # 2 of 2**5 ways
        (6, 0, 25 / 6, 2 / 64),  # the fewest clips that can be significant
        (5, 1, 9 / 6, 2 * (1 + 6) / 64),
        (1, 9, 49 / 10, 2 * (1 + 10) / 1024),
        (10, 2, 49 / 12, 2 * (1 + 12 + 66) / 4096),
        (7, 7, 0.0, 1.0),
        (8, 7, 0.0, 1.0),
    ],
)
def test_mcnemar_by_hand(b, c, chi2, exact):
    for test in (mcnemar(b, c), mcnemar(c, b)):
        assert test.chi2 == pytest.approx(chi2)
        assert test.exact_p_value == pytest.approx(exact)
        assert test.p_value == pytest.approx(math.erfc(math.sqrt(chi2 / 2)))  # chi-square with one degree of freedom
    assert (mcnemar(b, c).b, mcnemar(b, c).c) == (b, c)


def test_the_exact_p_value_is_the_binomial_one_for_all_small_counts():
    for n in range(1, 30):
        ways = np.array([math.comb(n, k) for k in range(n + 1)])
        for b in range(n + 1):
            expected = ways[ways <= ways[b]].sum() / 2**n  # all outcomes that are no more likely
            assert mcnemar(b, n - b).exact_p_value == pytest.approx(expected)


def test_mcnemar_takes_whole_numbers_of_any_type_and_no_others():
    assert mcnemar(np.int64(10), np.int32(2)) == mcnemar(10, 2)
    with pytest.raises(ValueError, match=r"b and c must be counts of clips >= 0, received b=-1, c=2\."):
        mcnemar(-1, 2)
    with pytest.raises(TypeError):
        mcnemar(1.5, 2)


@pytest.mark.parametrize(
    ("b", "c", "n", "expected"),
    [
        (1, 0, 2, (0.0, 1.0)),  # 0, 1 or 2 of 2 with the chances 1/4, 1/2, 1/4
        (1, 0, 10, (0.0, 0.3)),  # binomial(10, 0.1): P(>= 3) = 0.070, P(>= 4) = 0.013
        (5, 0, 10, (0.2, 0.8)),  # binomial(10, 0.5): P(<= 1) = 0.011, P(<= 2) = 0.055
        (10, 0, 10, (1.0, 1.0)),
        (0, 0, 7, (0.0, 0.0)),
        (1, 1, 2, (-1.0, 1.0)),  # -2 with the chance 1/16, which is more than 0.025
        (1, 0, 1, (1.0, 1.0)),
    ],
)
def test_the_interval_by_hand(b, c, n, expected):
    assert difference_interval(b, c, n) == pytest.approx(expected)
    low, high = difference_interval(c, b, n)
    assert (-high, -low) == difference_interval(b, c, n), "the other way round it is the same with the other sign"


@pytest.mark.parametrize(("b", "c", "n"), [(13, 3, 80), (0, 2, 30), (20, 20, 40), (1, 6, 61)])
def test_the_interval_is_that_of_the_sum_of_n_independent_terms(b, c, n):
    chance = np.ones(1)
    for _ in range(n):
        chance = np.convolve(chance, [c / n, (n - b - c) / n, b / n])
    low = np.argmax(np.cumsum(chance) >= 0.025) - n
    high = n - np.argmax(np.cumsum(chance[::-1]) >= 0.025)
    assert difference_interval(b, c, n) == (low / n, high / n)


@pytest.mark.parametrize(("b", "c", "n"), [(23, 36, 915), (659, 576, 13661), (3, 1, 40), (300, 300, 601)])
def test_the_interval_is_the_one_that_many_resamples_of_the_clips_reach(b, c, n):
    drawn = np.random.default_rng(0).multinomial(n, [b / n, c / n, 1 - (b + c) / n], size=100_000)
    low, high = np.quantile(drawn[:, 0] - drawn[:, 1], [0.025, 0.975]) / n
    error = max(1 / n, 0.02 * (high - low))  # of the simulation
    assert difference_interval(b, c, n) == pytest.approx((low, high), abs=error)


def test_the_interval_narrows_with_clips_and_widens_with_the_level():
    low, high = difference_interval(40, 20, 400)
    assert -1 <= low < 0.05 < high <= 1
    inner_low, inner_high = difference_interval(400, 200, 4000)
    assert low < inner_low < 0.05 < inner_high < high
    outer_low, outer_high = difference_interval(40, 20, 400, level=0.99)
    assert outer_low < low < high < outer_high
    # Far from the ends it is the normal approximation's: 0.05 -+ 1.96 sqrt((psi - delta^2) / n).
    half = 1.959964 * math.sqrt((0.15 - 0.05**2) / 4000)
    assert (inner_low, inner_high) == pytest.approx((0.05 - half, 0.05 + half), abs=1.01 / 4000)


@pytest.mark.parametrize(("b", "c", "n"), [(-1, 0, 5), (0, -1, 5), (3, 3, 5), (0, 0, 0)])
def test_counts_that_do_not_fit_are_refused(b, c, n):
    for function in (difference_interval, clips_needed):
        with pytest.raises(ValueError, match=rf"received b={b}, c={c}, num_clips={n}\."):
            function(b, c, n)


@pytest.mark.parametrize("level", [0, 1, -0.5, math.nan])
def test_levels_outside_0_and_1_are_refused(level):
    with pytest.raises(ValueError, match="level must be in"):
        difference_interval(1, 1, 5, level=level)
    with pytest.raises(ValueError, match="alpha and power must be in"):
        clips_needed(2, 1, 5, alpha=level)
    with pytest.raises(ValueError, match="alpha and power must be in"):
        clips_needed(2, 1, 5, power=level)


def test_the_clips_that_are_needed_by_hand():
    # psi 0.3, delta 0.1: ((1.959964 sqrt(0.3) + 0.841621 sqrt(0.29)) / 0.1)^2 = (1.526738 / 0.1)^2 = 233.09
    assert clips_needed(20, 10, 100) == clips_needed(10, 20, 100) == clips_needed(200, 100, 1000) == 234
    # psi = delta = 1: all clips, and nothing varies: 1.959964^2 = 3.84
    assert clips_needed(10, 0, 10) == 4
    assert clips_needed(7, 7, 100) is None
    assert clips_needed(0, 0, 100) is None
    assert clips_needed(20, 10, 100, power=0.9) > 234 < clips_needed(20, 10, 100, alpha=0.01)


def test_with_the_clips_that_are_needed_the_test_finds_the_difference_as_often_as_asked():
    rng = np.random.default_rng(0)
    n = clips_needed(120, 80, 1000)
    drawn = rng.multinomial(n, [0.12, 0.08, 0.8], size=20_000).astype(float)
    statistic = (drawn[:, 0] - drawn[:, 1]) ** 2 / (drawn[:, 0] + drawn[:, 1])
    assert np.mean(statistic > 1.959964**2) == pytest.approx(0.8, abs=0.01)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.04]) == pytest.approx([0.04])
    assert holm([0.5, 0.6, 0.7]) == pytest.approx([1, 1, 1])
    assert holm([]).shape == (0,)
    assert holm([0.0, 1.0]) == pytest.approx([0, 1])


def test_holm_does_not_depend_on_the_order_and_lies_between_each_and_bonferroni():
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.random(20) ** 4, [0.01, 0.01]])
    order = rng.permutation(len(values))
    np.testing.assert_array_equal(holm(values)[order], holm(values[order]))
    assert (holm(values) >= values).all()
    assert (holm(values) <= np.minimum(len(values) * values, 1)).all()


@pytest.mark.parametrize("values", [[-0.1], [1.1], [math.nan, 0.5], [[0.5]]])
def test_holm_refuses_what_is_no_p_value(values):
    with pytest.raises(ValueError, match=r"p_values must be float\[m\] in \[0, 1\]"):
        holm(values)
