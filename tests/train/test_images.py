"""Images through the trainer: an image is a clip of one frame, and nothing else about a run is different."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxvid import config as config_lib
from jaxvid.train import assemble, train

CONFIGS = Path(__file__).resolve().parent.parent.parent / "configs"
FORMATS = ("png", "jpeg", "webp", "bmp")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """``train/CLASS/*`` (8 each) and ``val/CLASS/*`` (3 each): bright at the top, or at the bottom.

    They are of all formats, and one of ``val/top`` is cut off.
    """
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for name in ("bottom", "top"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture = rng.integers(0, 100, (40, 44 + 2 * i, 3), dtype=np.uint8)
                picture[:20] += 150 if name == "top" else 0
                picture[20:] += 150 if name == "bottom" else 0
                Image.fromarray(picture).save(folder / f"{i}.{FORMATS[i % 4]}")
    lost = root / "val" / "top" / "1.jpeg"
    lost.write_bytes(lost.read_bytes()[:-200])
    return root


def tiny(root, **overrides):
    fields = {
        "model.name": "resnet2d_18",
        "model.width": 4,
        "data.root": str(root),
        "data.short_side": (36, 40),
        "data.crop_size": 32,
        "data.num_workers": 0,
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 0.01,
        "optimizer.base_batch_size": 0,
        "schedule.warmup_epochs": 0.0,
        "train.num_epochs": 6.0,
        "train.batch_size": 8,
        "train.mesh": (("data", 1),),
        "train.tensorboard": False,
        "eval.short_side": 36,
        "eval.crop_size": 32,
        "eval.batch_size": 8,
        "eval.every_epochs": 6.0,
        "data.max_bad_fraction": 0.5,
    }
    return config_lib.load(f"{CONFIGS / 'folder.py'}:images", fields | overrides)


@pytest.mark.slow
def test_a_folder_of_images_is_learnt_and_evaluated_and_a_damaged_one_is_named(images, tmp_path):
    done = train(tiny(images), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == done.step == 12
    assert losses[0] == pytest.approx(math.log(2), abs=0.3)
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    assert (done.metrics["num_clips"], done.metrics["num_missing"]) == (6, 1)
    assert done.metrics["top1"] == pytest.approx(5 / 6), "all but the one that cannot be read"
    entries = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert len(entries) == 1
    assert str(images / "val" / "top" / "1.jpeg") in entries[0]["error"]
    assert "is cut off: it ends after" in entries[0]["error"]


@pytest.mark.parametrize(
    ("argument", "name", "options"),
    [
        ("", "resnet2d_18", ()),
        (":pool=soft", "resnet2d_18", ("pool=soft",)),
        (":network=densenet2d_121,pool=avg", "densenet2d_121", ("pool=avg",)),
        (":network=srtg_resnet2d_18", "srtg_resnet2d_18", ()),
    ],
)
def test_the_config_of_digits(argument, name, options):
    config = config_lib.load(f"{CONFIGS / 'digits.py'}{argument}")
    assert (config.model.name, config.model.options) == (name, options)
    assert (config.data.name, config.data.num_frames) == ("digits", 1)
    assemble.check_names(config)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("pol=soft", r"configs/digits.py takes network, pool as name=value, received 'pol'\."),
        ("pool=sof", r"pool must be one of max, avg, soft, received pool='sof'"),
        ("network=resnet2d18", r"model.name must be one of .*did you mean 'resnet2d_18'|received 'resnet2d18'"),
    ],
)
def test_what_the_config_of_digits_refuses(argument, message):
    with pytest.raises(ValueError, match=message):
        assemble.check_names(config_lib.load(f"{CONFIGS / 'digits.py'}:{argument}"))
