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
THESIS_CONV = "Stergiou, thesis 2022, table 5.2"
THESIS_K400 = "Stergiou, thesis 2022, table 5.1"
ZOO = "PySlowFast, model zoo"
ZOO_PTV = "PySlowFast, model zoo of pytorchvideo's networks"
ZOO_VMZ = "VMZ, model zoo"
TORCHVISION = "torchvision's documentation of the weights"
U2S = "U2S (Zhao et al.), table III"
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

_IMAGES = (
    *("resnet2d_18", "resnet2d_34", "resnet2d_50", "resnet2d_101", "resnet2d_152"),
    *("resnext2d_50_32x4d", "resnext2d_101_32x4d", "resnext2d_101_32x8d", "wide_resnet2d_50_2"),
    *("densenet2d_121", "densenet2d_161", "densenet2d_169", "densenet2d_201"),
)

CLIPS: Mapping[str, Size3] = MappingProxyType(
    {
        "x3d_xs": (4, 160, 160),
        "x3d_s": (13, 160, 160),
        "x3d_m": (16, 224, 224),
        "x3d_l": (16, 312, 312),
        "x3d_xl": (16, 312, 312),
        # The fast pathway's frames; for CSN the clips of the published weights.
        "slowfast_r50_4x16": (32, 224, 224),
        "slowfast_r50_8x8": (32, 224, 224),
        "slowfast_r101_8x8": (32, 224, 224),
        "slowfast_r101_16x8": (64, 224, 224),
        "slow_r50_4x16": (4, 224, 224),
        "slow_r50_8x8": (8, 224, 224),
        "slow_r101_8x8": (8, 224, 224),
        "ip_csn_50": (32, 224, 224),
        "ip_csn_101": (32, 224, 224),
        "ip_csn_152": (32, 224, 224),
        "ir_csn_50": (32, 224, 224),
        "ir_csn_101": (32, 224, 224),
        "ir_csn_152": (32, 224, 224),
        "tam_r50": (16, 256, 256),
        "tam_r101": (16, 256, 256),
        "r3d_18_torchvision": (16, 112, 112),
        "mc3_18_torchvision": (16, 112, 112),
        "r2plus1d_18_torchvision": (16, 112, 112),
        "u2s_resnet_50": (18, 224, 224),
        **dict.fromkeys(_IMAGES, (1, 224, 224)),
        "mtnet_s": (13, 182, 182),
    }
    | dict.fromkeys(("mtnet_m", "mtnet_l"), (16, 256, 256))
    | {f"mtnet_ref_{size}{groups}": (16, 256, 256) for size in ("xs", "s", "m", "l") for groups in ("", "_g8")}
)
"""The clips of networks whose papers define them by one; those with SRTG have the same."""

_DOUBLE = "GFLOPs are twice the multiply-adds"
_MULTIPLY_ADDS = "GFLOPs are multiply-adds"
_AT_TEST = "GFLOPs are multiply-adds at 32x256x256"
_NORMALISED = "normalisation counted too, five operations a value"
_WITHOUT_BN = "parameters are without those of BN"
_NOT_MET = "GFLOPs not reproduced by any way of counting"
_AT_1000 = f"{_MULTIPLY_ADDS}; parameters are with 1000 classes"

PRINTED: Mapping[str, Printed] = MappingProxyType(
    {
        "r3d_34": Printed("63.7", "26.6", THESIS, "GFLOPs are near the multiply-adds of r3d_50"),
        "r3d_50": Printed("36.7", "52.6", THESIS, f"{_DOUBLE} (table 5.2: 53.2)"),
        "r3d_101": Printed("69.1", "78.0", THESIS, _DOUBLE),
        "r2plus1d_34": Printed("61.8", "37.8", THESIS, _NOT_MET),
        "r2plus1d_50": Printed(
            "34.8", "83.3", THESIS, "GFLOPs are twice the multiply-adds of r2plus1d_50_hara (table 5.2: 38.8 and 56.0)"
        ),
        "r2plus1d_101": Printed("67.2", "163.0", THESIS, f"{_NOT_MET} (table 5.1, of another code: 63.6 and 152)"),
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
        "resnext3d_101": Printed(
            None,
            "76.96",
            CFP,
            f"{_DOUBLE}, normalisation counted too (Class Regularization: 69.06 and 148.91, the figures of r3d_101 and "
            "resnet3d_152_hara)",
        ),
        "i3d": Printed(
            "12.07",
            "55.79",
            MDPI,
            f"parameters are 12.29 M without the classifier; {_DOUBLE}, normalisation counted too "
            "(thesis: 12.0 and 108.0; the multiply-adds at 64x224x224 are 111.2)",
        ),
        "mfnet": Printed(
            "8.0",
            "11.1",
            THESIS,
            f"{_MULTIPLY_ADDS} (table 5.2: 22.5, Class Regularization: 8.03 and 22.7, near twice as many)",
        ),
        "x3d_xs": Printed("3.8", "0.60", ZOO, _MULTIPLY_ADDS),
        "x3d_s": Printed("3.8", "1.96", ZOO, _MULTIPLY_ADDS),
        "x3d_m": Printed("3.8", "4.73", ZOO, f"{_MULTIPLY_ADDS} (thesis: 6.2, at 16x256x256)"),
        "x3d_l": Printed("6.2", "18.37", ZOO, f"{_MULTIPLY_ADDS} (thesis: 24.8, at 16x356x356)"),
        "mtnet_s": Printed("25.8", "5.8", THESIS_MT, f"parameters are 6.0 M; {_NOT_MET} (table 7.1: 11.30)"),
        "mtnet_m": Printed("25.8", "8.8", THESIS_MT, f"parameters are 6.0 M; {_NOT_MET} (table 7.1: 14.12)"),
        "mtnet_l": Printed("50.1", "17.6", THESIS_MT, f"parameters are 10.9 M; {_NOT_MET} (table 7.1: 20.82)"),
        "x3d_xl": Printed("11.0", "48.4", THESIS_MT, "GFLOPs are multiply-adds at 16x356x356"),
        "slowfast_r50_4x16": Printed(
            "34.48", "36.69", ZOO_PTV, f"{_AT_TEST}, {_NORMALISED} (thesis, table 5.2: 34.4 and 39.8)"
        ),
        "slowfast_r50_8x8": Printed(
            "34.57", "65.71", ZOO_PTV, f"{_AT_TEST} (thesis, table 5.1: 34.4 and 65.7; 34.4 are slowfast_r50_4x16's)"
        ),
        "slowfast_r101_8x8": Printed(
            "62.83", "127.20", ZOO_PTV, f"{_AT_TEST}; parameters are those with fusion_frames=5, ours has 7"
        ),
        "slowfast_r101_16x8": Printed(
            "53.7", "213.0", THESIS, "GFLOPs are multiply-adds at 64x256x256 (table 6.2: 65.7, slowfast_r50_8x8's)"
        ),
        "slow_r50_4x16": Printed(
            "32.45",
            "27.55",
            ZOO_PTV,
            f"GFLOPs are multiply-adds at 4x256x256, {_NORMALISED} (thesis, table 5.2: 26.6 and 27.3)",
        ),
        "slow_r50_8x8": Printed("32.45", "54.52", ZOO_PTV, "GFLOPs are multiply-adds at 8x256x256"),
        "ip_csn_101": Printed(
            "24.5", "63.6", THESIS, f"{_MULTIPLY_ADDS} (table 5.1: 83.0, at 32x256x256); {_WITHOUT_BN}"
        ),
        "ip_csn_152": Printed("32.8", "108.8", THESIS_K400, f"{_AT_TEST}; {_WITHOUT_BN}"),
        "ir_csn_101": Printed(
            "22.1", "63.6", THESIS, f"{_WITHOUT_BN}; GFLOPs are near the multiply-adds of ip_csn_101"
        ),
        "ir_csn_152": Printed("29.6", "96.7", ZOO_VMZ, f"{_AT_TEST}; {_WITHOUT_BN}"),
        "r3d_18_torchvision": Printed("33.371472", "40.70", TORCHVISION, _MULTIPLY_ADDS),
        "mc3_18_torchvision": Printed("11.695440", "43.34", TORCHVISION, _MULTIPLY_ADDS),
        "tsm_r50": Printed("24.3", "65", THESIS_MT, _MULTIPLY_ADDS),
        "tam_r50": Printed("25.6", "86", THESIS_MT, _MULTIPLY_ADDS),
        "mtconv_r3d_50": Printed("35.7", "23.1", THESIS_CONV, f"experimental; parameters are 29.4 M; {_NOT_MET}"),
        "u2s_resnet_50": Printed(None, "60.77", U2S, f"{_NOT_MET}; the multiply-adds are 4 % more"),
        "resnet2d_18": Printed("11.689512", "1.814", TORCHVISION, _AT_1000),
        "resnet2d_34": Printed("21.797672", "3.664", TORCHVISION, _AT_1000),
        "resnet2d_50": Printed("25.557032", "4.089", TORCHVISION, _AT_1000),
        "resnet2d_101": Printed("44.549160", "7.801", TORCHVISION, _AT_1000),
        "resnet2d_152": Printed("60.192808", "11.514", TORCHVISION, _AT_1000),
        "resnext2d_50_32x4d": Printed("25.028904", "4.23", TORCHVISION, _AT_1000),
        "resnext2d_101_32x8d": Printed("88.791336", "16.414", TORCHVISION, _AT_1000),
        "wide_resnet2d_50_2": Printed("68.883240", "11.398", TORCHVISION, _AT_1000),
        "densenet2d_121": Printed("7.978856", "2.834", TORCHVISION, _AT_1000),
        "densenet2d_161": Printed("28.681000", "7.728", TORCHVISION, _AT_1000),
        "densenet2d_169": Printed("14.149480", "3.36", TORCHVISION, _AT_1000),
        "densenet2d_201": Printed("20.013928", "4.291", TORCHVISION, _AT_1000),
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
    "resnext3d_50": (26_685_264, 29_578_166_272),
    "resnext3d_101": (48_340_816, 38_039_846_912),
    "srtg_resnext3d_50": (348_839_760, 30_073_094_144),
    "srtg_resnext3d_101": (655_986_512, 39_105_200_128),
    "i3d": (12_697_264, 27_787_978_752),
    "mfnet": (7_996_368, 11_045_449_728),
    "srtg_mfnet": (53_355_984, 11_407_601_664),
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
    "slowfast_r50_4x16": (34_480_216, 27_638_665_216),
    "slowfast_r50_8x8": (34_566_488, 50_308_583_424),
    "slowfast_r101_8x8": (62_913_240, 96_711_348_224),
    "slowfast_r101_16x8": (53_774_808, 163_094_597_632),
    "srtg_slowfast_r50_4x16": (361_694_808, 29_087_272_960),
    "srtg_slowfast_r50_8x8": (361_781_080, 53_044_842_496),
    "srtg_slowfast_r101_8x8": (680_110_296, 101_871_915_008),
    "srtg_slowfast_r101_16x8": (670_971_864, 173_415_731_200),
    "slow_r50_4x16": (32_454_096, 20_870_823_936),
    "slow_r50_8x8": (32_454_096, 41_740_828_672),
    "slow_r101_8x8": (60_359_120, 85_414_019_072),
    "srtg_slow_r50_4x16": (354_608_592, 22_158_475_264),
    "srtg_slow_r50_8x8": (354_608_592, 44_316_131_328),
    "srtg_slow_r101_8x8": (668_004_816, 90_271_023_104),
    "ip_csn_50": (14_396_176, 47_652_063_232),
    "ip_csn_101": (24_601_616, 63_558_658_048),
    "ip_csn_152": (33_016_592, 83_294_685_184),
    "ir_csn_50": (13_131_152, 42_308_519_936),
    "ir_csn_101": (22_213_776, 56_468_187_136),
    "ir_csn_152": (29_703_568, 74_046_244_864),
    "srtg_ip_csn_50": (336_550_672, 49_631_774_720),
    "srtg_ip_csn_101": (632_247_312, 67_820_070_912),
    "srtg_ip_csn_152": (875_789_072, 89_569_363_968),
    "srtg_ir_csn_50": (335_285_648, 44_288_231_424),
    "srtg_ir_csn_101": (629_859_472, 60_729_600_000),
    "srtg_ir_csn_152": (872_476_048, 80_320_923_648),
    "r3d_18_torchvision": (33_371_472, 40_696_553_472),
    "mc3_18_torchvision": (11_695_440, 43_342_635_008),
    "r2plus1d_18_torchvision": (31_505_325, 40_519_080_960),
    "srtg_r3d_18_torchvision": (44_543_312, 40_728_010_752),
    "srtg_mc3_18_torchvision": (22_867_280, 43_520_892_928),
    "srtg_r2plus1d_18_torchvision": (42_677_165, 40_550_538_240),
    "tsm_r18": (11_381_712, 29_017_186_304),
    "tsm_r34": (21_489_872, 58_612_195_328),
    "tsm_r50": (24_327_632, 65_394_999_296),
    "tsm_r101": (43_319_760, 124_790_538_240),
    "srtg_tsm_r18": (22_553_552, 29_195_444_224),
    "srtg_tsm_r34": (41_669_840, 58_934_108_160),
    "srtg_tsm_r50": (346_482_128, 70_545_604_608),
    "srtg_tsm_r101": (650_965_456, 134_504_546_304),
    "tam_r50": (25_597_744, 85_436_041_216),
    "tam_r101": (45_717_584, 163_034_359_808),
    "srtg_tam_r50": (347_752_240, 90_586_646_528),
    "srtg_tam_r101": (653_363_280, 172_748_367_872),
    "fast_r18": (36_483_408, 26_518_822_912),
    "fast_r34": (66_807_888, 43_859_648_512),
    "fast_r50": (36_739_792, 27_276_681_216),
    "fast_r101": (69_092_560, 39_941_906_432),
    "mtconv_r3d_50": (29_436_224, 22_054_381_568),
    "resnet2d_18": (11_381_712, 1_813_766_144),
    "resnet2d_34": (21_489_872, 3_663_454_208),
    "resnet2d_50": (24_327_632, 4_087_955_456),
    "resnet2d_101": (43_319_760, 7_800_176_640),
    "resnet2d_152": (58_963_408, 11_512_397_824),
    "resnext2d_50_32x4d": (23_799_504, 4_229_251_072),
    "resnext2d_101_32x4d": (42_948_304, 7_968_768_000),
    "resnext2d_101_32x8d": (87_561_936, 16_412_786_688),
    "wide_resnet2d_50_2": (67_653_840, 11_396_792_320),
    "srtg_fast_r18": (47_655_248, 26_534_551_552),
    "srtg_fast_r34": (86_987_856, 43_890_581_504),
    "srtg_fast_r50": (56_919_760, 27_307_614_208),
    "srtg_fast_r101": (107_167_952, 40_008_491_008),
    "srtg_mtconv_r3d_50": (49_616_192, 22_085_314_560),
    "srtg_resnet2d_18": (22_553_552, 1_824_907_264),
    "srtg_resnet2d_34": (41_669_840, 3_683_573_760),
    "srtg_resnet2d_50": (346_482_128, 4_409_868_288),
    "srtg_resnet2d_101": (650_965_456, 8_407_302_144),
    "srtg_resnet2d_152": (901_735_888, 12_354_404_352),
    "srtg_resnext2d_50_32x4d": (345_954_000, 4_551_163_904),
    "srtg_resnext2d_101_32x4d": (650_594_000, 8_575_893_504),
    "srtg_resnext2d_101_32x8d": (695_207_632, 17_019_912_192),
    "srtg_wide_resnet2d_50_2": (389_808_336, 11_718_705_152),
    "densenet2d_121": (7_363_856, 2_833_547_264),
    "densenet2d_161": (27_355_600, 7_726_582_272),
    "densenet2d_169": (13_150_480, 3_358_844_928),
    "densenet2d_201": (18_861_328, 4_290_213_888),
    "fast_densenet_121": (8_496_784, 30_690_459_648),
    "u2s_resnet_50": (32_446_416, 63_280_381_952),
    "srtg_u2s_resnet_50": (354_600_912, 66_356_903_936),
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
