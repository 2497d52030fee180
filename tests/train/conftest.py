"""One small run that the tests of the trainer share."""

import pytest

from jaxvid import config as config_lib
from jaxvid.benchmarks.clips import write_clip

CLASSES = ("bend", "clap", "wave")


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """``train/CLASS/*.mp4`` (5 each) and ``val/CLASS/*.mp4`` (2 each)."""
    root = tmp_path_factory.mktemp("videos")
    for split, count in (("train", 5), ("val", 2)):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                seed = 100 * label + i + (50 if split == "val" else 0)
                write_clip(folder / f"{i}.mp4", num_frames=8, height=24, width=32, gop=4, seed=seed)
    return root


@pytest.fixture(scope="session")
def tiny(videos):
    """``tiny(**overrides)``: a config of a tiny plain network on :func:`videos`, 15 clips in batches of 8."""

    def make(**overrides):
        fields = {
            "model.name": "r3d_18",
            "model.width": 2,
            "data.name": "folder",
            "data.root": str(videos),
            "data.num_frames": 4,
            "data.short_side": (20, 20),
            "data.crop_size": 16,
            "eval.short_side": 20,
            "eval.crop_size": 16,
            "eval.batch_size": 8,
            "train.batch_size": 8,
            "train.mesh": (("data", 1),),
            "train.num_epochs": 2.0,
            "train.tensorboard": False,
            "optimizer.learning_rate": 0.01,
        }
        return config_lib.load({}, fields | overrides)

    return make
