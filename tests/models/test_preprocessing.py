"""What the codes did to pixels: every code whose weights are converted says it."""

import dataclasses

import pytest

from jaxvid import models
from jaxvid.models.preprocessing import BY_CODE, preprocessing_of
from jaxvid.models.torch_names import SCHEMES


@pytest.mark.parametrize("code", sorted({scheme.code for schemes in SCHEMES.values() for scheme in schemes}))
def test_every_code_has_its_preprocessing(code):
    found = dataclasses.asdict(BY_CODE[code])
    assert found["color"] in ("RGB", "BGR")
    assert len(found["mean"]) == len(found["std"]) == 3
    assert min(found["std"]) > 0
    assert 0 < found["crop_size"] <= found["short_side"]


def test_every_entry_is_some_codes():
    assert {scheme.code for schemes in SCHEMES.values() for scheme in schemes} == set(BY_CODE)


@pytest.mark.parametrize(
    ("name", "code", "clip"),
    [
        ("x3d_m", "PySlowFast", (16, 5, 256, 256)),
        ("srtg_slowfast_r50_8x8", "pytorchvideo", (32, 2, 256, 256)),
        ("slow_r50_4x16", "PySlowFast", (4, 16, 256, 256)),
        ("srtg_slow_r50_8x8", "pytorchvideo", (8, 8, 256, 256)),
        ("ip_csn_152", "VMZ", (32, 2, 256, 224)),
        ("r3d_50", "the SRTG authors", (16, 2, 294, 256)),
    ],
)
def test_clips(name, code, clip):
    assert name in models.MODELS
    found = preprocessing_of(name, code)
    assert (found.num_frames, found.frame_stride, found.short_side, found.crop_size) == clip
