"""What the codes that published weights did to a video before their networks saw it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MFNET_MEAN = (124 / 255, 117 / 255, 104 / 255)
_MFNET_STD = (1 / (0.0167 * 255), 1 / (0.0167 * 255), 1 / (0.0167 * 255))
_KINETICS_MEAN, _KINETICS_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
_HALF = (0.5, 0.5, 0.5)  # pixels in [-1, 1]


@dataclass(frozen=True)
class Preprocessing:
    """How a clip is cut out and normalised.

    Attributes:
      source: where this is written.
      num_frames: of a clip.
      frame_stride: frames from one frame of a clip to the next.
      short_side: pixels of the resized video's short side, in evaluation.
      crop_size: pixels of the square that the network is given.
      mean: per channel, of pixels in [0, 1], in the order of ``color``.
      std: per channel, of pixels in [0, 1].
      color: ``"RGB"`` or ``"BGR"``.
    """

    source: str
    num_frames: int = 16
    frame_stride: int = 1
    short_side: int = 256
    crop_size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    color: str = "RGB"


_SLOWFAST = Preprocessing(
    "PySlowFast, the configurations of its model zoo", mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225)
)

BY_CODE: Mapping[str, Preprocessing] = MappingProxyType(
    {
        # Their frames come from cv2.imdecode, BGR, and are never converted, while the mean is in the order of RGB.
        "the SRTG authors": Preprocessing(
            "SRTG authors' code (data/iterators, HACS)",
            frame_stride=2,
            short_side=294,
            crop_size=256,
            mean=_MFNET_MEAN,
            std=_MFNET_STD,
            color="BGR",
        ),
        "Hara": Preprocessing(
            "Hara et al., the authors' code (Kinetics mean and std)",
            short_side=112,
            crop_size=112,
            mean=(0.4345, 0.4051, 0.3775),
            std=(0.2768, 0.2713, 0.2737),
        ),
        "torchvision": Preprocessing(
            "torchvision, the weights' own transforms",
            short_side=128,
            crop_size=112,
            mean=_KINETICS_MEAN,
            std=_KINETICS_STD,
        ),
        "VMZ": Preprocessing("VMZ's test, 15 frames a second", 32, 2, mean=_KINETICS_MEAN, std=_KINETICS_STD),
        "the MF-Net authors": Preprocessing("MF-Net authors' code", frame_stride=2, mean=_MFNET_MEAN, std=_MFNET_STD),
        "piergiaj": Preprocessing("piergiaj's code: pixels in [-1, 1]", 64, mean=_HALF, std=_HALF),
        "TensorFlow Hub": Preprocessing("TensorFlow Hub's I3D: pixels in [-1, 1]", 64, mean=_HALF, std=_HALF),
        "pytorchvideo": _SLOWFAST,
        "PySlowFast": _SLOWFAST,
        "the TSM authors": Preprocessing("TSM authors' code", 8, 8),
        "the TAM authors": Preprocessing("TAM authors' code", 8, 8),
        "torchvision images": Preprocessing("torchvision, the weights' own transforms", 1),
    }
)
"""By the code that the weights were trained with, as :attr:`jaxvid.models.schemes.Scheme.code` names it."""

_CLIPS: Mapping[str, tuple[int, int, int, int]] = MappingProxyType(
    {  # num_frames, frame_stride, short_side, crop_size, as in the configurations of the model zoo
        "x3d_xs": (4, 12, 182, 182),
        "x3d_s": (13, 6, 182, 182),
        "x3d_m": (16, 5, 256, 256),
        "x3d_l": (16, 5, 356, 356),
        "x3d_xl": (16, 5, 356, 356),
        **dict.fromkeys(
            [f"{kind}_csn_{depth}" for kind in ("ip", "ir") for depth in (50, 101, 152)], (32, 2, 256, 224)
        ),
        "slow_r50_4x16": (4, 16, 256, 256),
        "slow_r50_8x8": (8, 8, 256, 256),
        "slow_r101_8x8": (8, 8, 256, 256),
        # the frames of the fast pathway
        "slowfast_r50_4x16": (32, 2, 256, 256),
        "slowfast_r50_8x8": (32, 2, 256, 256),
        "slowfast_r101_8x8": (32, 2, 256, 256),
        "slowfast_r101_16x8": (64, 2, 256, 256),
    }
)


def preprocessing_of(name: str, code: str) -> Preprocessing:
    """What the weights of a network expect, by the code that they come from.

    >>> preprocessing_of("x3d_s", "pytorchvideo").num_frames, preprocessing_of("srtg_r3d_34", "the SRTG authors").color
    (13, 'BGR')
    """
    found = BY_CODE[code]
    if name.removeprefix("srtg_") in _CLIPS:
        num_frames, frame_stride, short_side, crop_size = _CLIPS[name.removeprefix("srtg_")]
        clip = {"num_frames": num_frames, "frame_stride": frame_stride}
        found = replace(found, short_side=short_side, crop_size=crop_size, **clip)
    return found
