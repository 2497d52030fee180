"""The figures of the model cards: our own counts, and what the papers print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from jaxvid.types import Size3

THESIS = "Stergiou, thesis 2022, tables 4.2 and 6.2"
THESIS_MT = "Stergiou, thesis 2022, tables 5.5 and 6.2"
THESIS_CR = "Stergiou, thesis 2022, table 6.4"
MDPI = "Class Regularization (Stergiou et al. 2020), table 2"
ZOO = "PySlowFast, model zoo"
CFP = "Class Feature Pyramids (Stergiou et al. 2019), table 1"


@dataclass(frozen=True)
class Printed:
    """What a paper prints about a network.

    Attributes:
      params: millions of parameters, as printed.
      gflops: 10^9 operations, as printed, without the number of views.
      source: paper and table.
      remark: how the figures relate to ours where they are not simply equal.
    """

    params: str | None = None
    gflops: str | None = None
    source: str = ""
    remark: str = ""


CLIP: Size3 = (16, 224, 224)
"""``(T, H, W)`` at which multiply-adds are counted, where a network has no clip of its own."""

CLIPS: Mapping[str, Size3] = MappingProxyType(
    {
        "x3d_xs": (4, 160, 160),
        "x3d_s": (13, 160, 160),
        "x3d_m": (16, 224, 224),
        "x3d_l": (16, 312, 312),
        "x3d_xl": (16, 312, 312),
        "mtnet_s": (13, 182, 182),
    }
    | dict.fromkeys(("mtnet_m", "mtnet_l"), (16, 256, 256))
    | {f"mtnet_ref_{size}{groups}": (16, 256, 256) for size in ("xs", "s", "m", "l") for groups in ("", "_g8")}
)
"""The clips of networks whose papers define them by one; those with SRTG have the same."""

_DOUBLE = "GFLOPs are twice the multiply-adds"
_MULTIPLY_ADDS = "GFLOPs are multiply-adds"
_NOT_MET = "GFLOPs not reproduced by any way of counting"

PRINTED: Mapping[str, Printed] = MappingProxyType(
    {
        "r3d_34": Printed("63.7", "26.6", THESIS, "GFLOPs are near the multiply-adds of r3d_50"),
        "r3d_50": Printed("36.7", "52.6", THESIS, _DOUBLE),
        "r3d_101": Printed("69.1", "78.0", THESIS, _DOUBLE),
        "r2plus1d_34": Printed("61.8", "37.8", THESIS, _NOT_MET),
        "r2plus1d_50": Printed("34.8", "83.3", THESIS, "GFLOPs are twice the multiply-adds of r2plus1d_50_hara"),
        "r2plus1d_101": Printed("67.2", "163.0", THESIS, _NOT_MET),
        "wide_r3d_50": Printed("140.9", "168.6", THESIS_CR, _DOUBLE),
        "srtg_r3d_34": Printed("83.8", "26.6", THESIS, "GFLOPs are near the multiply-adds of srtg_r3d_50"),
        "srtg_r3d_50": Printed("56.9", "52.7", THESIS, _DOUBLE),
        "srtg_r3d_101": Printed("107.1", "78.1", THESIS, _DOUBLE),
        "srtg_r2plus1d_34": Printed("82.1", "37.8", THESIS, f"parameters are 82.0 M; {_NOT_MET}"),
        "srtg_r2plus1d_50": Printed(
            "55.0", "83.4", THESIS, "GFLOPs are near twice the multiply-adds of r2plus1d_50_hara"
        ),
        "srtg_r2plus1d_101": Printed("105.3", "163.1", THESIS, _NOT_MET),
        "resnet3d_50_hara": Printed(
            "36.72", "80.32", MDPI, f"parameters are those of r3d_50; {_DOUBLE}, normalisation counted too"
        ),
        "resnet3d_101_hara": Printed(
            "69.06", "110.98", MDPI, f"parameters are those of r3d_101; {_DOUBLE}, normalisation counted too"
        ),
        "resnet3d_152_hara": Printed(None, "148.91", CFP, f"{_DOUBLE}, normalisation counted too"),
        "r2plus1d_50_hara": Printed("34.86", "89.14", MDPI, f"parameters are those of r2plus1d_50; {_NOT_MET}"),
        "r2plus1d_101_hara": Printed("67.22", "159.21", MDPI, f"parameters are those of r2plus1d_101; {_NOT_MET}"),
        "wide_resnet3d_50_hara": Printed("140.94", "72.32", MDPI, f"parameters are those of wide_r3d_50; {_NOT_MET}"),
        "x3d_xs": Printed("3.8", "0.60", ZOO, _MULTIPLY_ADDS),
        "x3d_s": Printed("3.8", "1.96", ZOO, _MULTIPLY_ADDS),
        "x3d_m": Printed("3.8", "4.73", ZOO, f"{_MULTIPLY_ADDS} (thesis: 6.2, at 16x256x256)"),
        "x3d_l": Printed("6.2", "18.37", ZOO, f"{_MULTIPLY_ADDS} (thesis: 24.8, at 16x356x356)"),
        "mtnet_s": Printed("25.8", "5.8", THESIS_MT, f"parameters are 6.0 M; {_NOT_MET}"),
        "mtnet_m": Printed("25.8", "8.8", THESIS_MT, f"parameters are 6.0 M; {_NOT_MET}"),
        "mtnet_l": Printed("50.1", "17.6", THESIS_MT, f"parameters are 10.9 M; {_NOT_MET}"),
        "x3d_xl": Printed("11.0", "48.4", THESIS_MT, "GFLOPs are multiply-adds at 16x356x356"),
    }
)
"""Name -> what the papers print. Parameters that need no remark agree with ours to the printed digits."""

# One line per network: (parameters, multiply-adds), 400 classes, one clip (see CLIPS).
_COUNTED = {
    "r3d_18": (33_371_472, 25_304_965_120),
    "r3d_34": (63_681_104, 42_645_790_720),
    "r3d_50": (36_724_688, 26_467_442_688),
    "r3d_101": (69_060_048, 39_132_667_904),
    "r3d_152": (95_690_704, 54_777_946_112),
    "r3d_200": (103_305_168, 78_618_370_048),
    "r2plus1d_18": (31_505_325, 22_938_664_960),
    "r2plus1d_34": (61_831_661, 40_279_490_560),
    "r2plus1d_50": (34_863_287, 24_830_224_896),
    "r2plus1d_101": (67_218_231, 37_495_450_112),
    "r2plus1d_152": (93_866_167, 53_140_728_320),
    "r2plus1d_200": (101_489_847, 76_981_152_256),
    "wide_r3d_50": (140_937_936, 85_374_869_504),
    "wide_r3d_101": (265_762_000, 134_288_842_752),
    "resnet3d_18_hara": (33_409_104, 32_857_858_048),
    "resnet3d_34_hara": (63_718_736, 50_198_683_648),
    "resnet3d_50_hara": (47_018_576, 39_846_182_912),
    "resnet3d_101_hara": (86_064_720, 55_131_799_552),
    "resnet3d_152_hara": (118_223_440, 74_014_031_872),
    "resnet3d_200_hara": (127_423_056, 102_786_957_312),
    "r2plus1d_18_hara": (33_421_164, 33_501_616_128),
    "r2plus1d_34_hara": (63_747_500, 50_842_441_728),
    "r2plus1d_50_hara": (47_035_382, 41_585_483_776),
    "r2plus1d_101_hara": (86_101_110, 56_871_100_416),
    "wide_resnet3d_50_hara": (158_338_832, 117_327_560_704),
    "srtg_r3d_18": (44_543_312, 25_320_693_760),
    "srtg_r3d_34": (83_861_072, 42_676_723_712),
    "srtg_r3d_50": (56_904_656, 26_498_375_680),
    "srtg_r3d_101": (107_135_440, 39_199_252_480),
    "srtg_r3d_152": (148_507_600, 54_875_987_968),
    "srtg_r3d_200": (160_349_136, 78_733_189_120),
    "srtg_r2plus1d_18": (42_677_165, 22_954_393_600),
    "srtg_r2plus1d_34": (82_011_629, 40_310_423_552),
    "srtg_r2plus1d_50": (55_043_255, 24_861_157_888),
    "srtg_r2plus1d_101": (105_293_623, 37_562_034_688),
    "srtg_r2plus1d_152": (146_683_063, 53_238_770_176),
    "srtg_r2plus1d_200": (158_533_815, 77_095_971_328),
    "srtg_wide_r3d_50": (161_117_904, 85_405_802_496),
    "srtg_wide_r3d_101": (303_837_392, 134_355_427_328),
    "srtg_resnet3d_18_hara": (44_580_944, 32_873_586_688),
    "srtg_resnet3d_34_hara": (83_898_704, 50_229_616_640),
    "srtg_resnet3d_50_hara": (369_173_072, 40_341_110_784),
    "srtg_resnet3d_101_hara": (693_710_416, 56_197_152_768),
    "srtg_resnet3d_152_hara": (960_995_920, 75_582_701_568),
    "srtg_resnet3d_200_hara": (1_037_435_472, 104_624_062_464),
    "srtg_r2plus1d_18_hara": (44_593_004, 33_517_344_768),
    "srtg_r2plus1d_34_hara": (83_927_468, 50_873_374_720),
    "srtg_r2plus1d_50_hara": (369_189_878, 42_080_411_648),
    "srtg_r2plus1d_101_hara": (693_746_806, 57_936_453_632),
    "srtg_wide_resnet3d_50_hara": (480_493_328, 117_822_488_576),
    "x3d_xs": (3_794_274, 605_256_512),
    "x3d_s": (3_794_274, 1_962_892_112),
    "x3d_m": (3_794_274, 4_732_468_736),
    "x3d_l": (6_153_384, 18_367_710_176),
    "x3d_xl": (11_095_840, 35_837_627_616),
    "srtg_x3d_xs": (9_800_418, 629_107_520),
    "srtg_x3d_s": (9_800_418, 2_040_407_888),
    "srtg_x3d_m": (9_800_418, 4_827_872_768),
    "srtg_x3d_l": (19_195_944, 18_574_885_856),
    "srtg_x3d_xl": (38_357_280, 36_271_639_776),
    "mtnet_s": (5_986_413, 2_271_574_373),
    "mtnet_m": (5_986_413, 5_149_466_880),
    "mtnet_l": (10_923_199, 9_899_724_032),
    "mtnet_ref_xs": (21_835_664, 20_780_161_024),
    "mtnet_ref_s": (39_981_968, 24_220_354_560),
    "mtnet_ref_m": (44_038_288, 33_048_038_400),
    "mtnet_ref_l": (88_132_752, 49_738_062_848),
    "mtnet_ref_xs_g8": (7_433_500, 7_851_096_064),
    "mtnet_ref_s_g8": (12_204_988, 7_942_457_344),
    "mtnet_ref_m_g8": (13_274_842, 8_162_821_120),
    "mtnet_ref_l_g8": (24_883_258, 8_594_574_336),
}
COUNTED: Mapping[str, tuple[int, int]] = MappingProxyType(_COUNTED)
"""Name -> (parameters, multiply-adds) as :func:`jaxvid.models.cards.count` gives them; a test counts them afresh."""
