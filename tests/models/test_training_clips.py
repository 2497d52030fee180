"""The usual training clips: of networks that exist, and other ones than those of the cards."""

import pytest

from jaxvid.models import MODELS, cards
from jaxvid.models.training_clips import TRAINING_CLIPS, training_clip_of


def test_only_known_networks_whose_card_has_another_clip_are_listed():
    for name, row in TRAINING_CLIPS.items():
        assert name in MODELS
        assert row.clip != cards.clip_of(name)
        assert row.source


@pytest.mark.parametrize(
    ("name", "clip"),
    [
        ("i3d", (64, 224, 224)),
        ("resnext3d_101", (16, 112, 112)),
        ("srtg_r2plus1d_50_hara", (16, 112, 112)),
        ("srtg_tam_r50", (16, 224, 224)),
        ("slowfast_r50_8x8", (32, 224, 224)),
        ("srtg_slow_r50_4x16", (4, 224, 224)),
        ("x3d_l", (16, 312, 312)),
        ("resnet2d_50", (1, 224, 224)),
    ],
)
def test_literals(name, clip):
    assert training_clip_of(name) == clip


def test_every_network_of_hara_is_trained_at_112():
    of_hara = {name for name in MODELS if name.endswith("_hara") or "resnext3d" in name}
    assert len(of_hara) == 26
    assert {training_clip_of(name) for name in of_hara} == {(16, 112, 112)}
