"""One run, made of weights from elsewhere, and a few videos of its classes."""

import json

import flax.traverse_util
import numpy as np
import pytest

from jaxvid import models
from jaxvid.benchmarks.clips import write_clip
from jaxvid.models.convert import torch_key
from jaxvid.models.cost import variable_shapes
from jaxvid.train.imported import import_weights

CLASSES = ("wave", 'bend, "then"\nclap', "clap")


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """Folder of a converted run: a small plain network with three classes."""
    folder = tmp_path_factory.mktemp("weights")
    model = models.build("resnet3d_18_hara", len(CLASSES), width=2)
    rng = np.random.default_rng(0)
    arrays = {}
    for path, leaf in flax.traverse_util.flatten_dict(dict(variable_shapes(model))).items():
        array = rng.uniform(0.5, 1.5, leaf.shape) if path[-1] == "var" else 0.5 * rng.standard_normal(leaf.shape)
        order = (4, 3, 0, 1, 2) if array.ndim == 5 else tuple(reversed(range(array.ndim)))
        arrays[torch_key("resnet3d_18_hara", model, path)] = array.transpose(order).astype(np.float32)
    np.savez(folder / "weights.npz", **arrays)
    (folder / "names.json").write_text(json.dumps(CLASSES))
    names = folder / "names.json"
    return import_weights(folder / "weights.npz", "resnet3d_18_hara", folder / "run", class_names=names).run


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    """``train/CLASS/0.mp4`` and ``val/CLASS/{0,1}.mp4``, 8 frames of 24 x 32 pixels at 30 a second."""
    root = tmp_path_factory.mktemp("videos")
    for split, count in (("train", 1), ("val", 2)):
        for label, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                write_clip(folder / f"{i}.mp4", num_frames=8, height=24, width=32, gop=4, seed=10 * label + i)
    return root


@pytest.fixture(scope="session")
def small():
    """Config fields that make a prediction quick: short clips of few pixels, four at a time on one device."""
    return {
        "data.num_frames": 4,
        "eval.short_side": 20,
        "eval.crop_size": 16,
        "eval.batch_size": 4,
        "train.mesh": (("data", 1),),
    }
