"""From a config to the parts of a run: data sets, clip recipes and the model."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import flax.linen as nn
import jax

from jaxvid import data, models
from jaxvid.config import Config
from jaxvid.config.schema import ModelConfig
from jaxvid.data.pipeline import Batches, EvalClips, FrameCache, TrainClips, eval_batches
from jaxvid.data.quarantine import Quarantine
from jaxvid.data.records import VideoDataset
from jaxvid.data.sources.listing import holds_flow
from jaxvid.models.class_regularized import class_regularized
from jaxvid.models.universal_to_specific import universal_to_specific
from jaxvid.ops.choices import require_choice
from jaxvid.train import sharding
from jaxvid.train.writers import Progress


def check_names(config: Config) -> None:
    """Raises ``ValueError`` where a network, one of its options or a data set does not exist, before any is made."""
    require_choice("model.name", config.model.name, models.MODELS)
    require_choice("data.name", config.data.name, data.DATASETS)
    build_model(config, num_classes=1)


def open_dataset(config: Config, split: str, progress: Progress | None = None) -> VideoDataset:
    """One split of the configured data set; an embedded one is made at its first use, with a progress bar.

    Raises:
      ValueError: the data set's name is unknown, the split holds no video, or the root holds another modality.
    """
    _check_modality(config)
    options: dict[str, Any] = {"annotations": config.data.annotations, "val_fraction": config.data.val_fraction}
    if config.data.name == "folder":
        options["train_split"] = config.data.train_split
    options |= {name: value for name in ("dictionary", "missing") if (value := getattr(config.data, name))}
    if config.data.name in ("motion", "motion_fine") and progress is not None:
        options["progress"] = progress.making()
    dataset = data.open_dataset(config.data.name, config.data.root, split, **options)
    if not len(dataset):
        raise ValueError(f"split {split!r} of data.name={config.data.name!r} must hold at least 1 video, received 0.")
    return dataset


def split_names(config: Config) -> tuple[str, ...]:
    """The configured splits, those of all folds where there are folds."""
    both = config.data.train_split, config.data.eval_split
    filled = [split.replace("{fold}", fold) for fold in config.data.folds for split in both]
    return tuple(dict.fromkeys(filled or both))


def _check_modality(config: Config) -> None:
    """A network would learn from colours taken for directions without a word."""
    data = config.data
    if (data.modality == "flow") != holds_flow(data.root):
        holds = "optical flow" if holds_flow(data.root) else "none"
        raise ValueError(
            f"data.modality must be 'flow' where data.root is a folder that 'jaxvid data flow' made, and only there, "
            f"received data.modality={data.modality!r} with data.root={data.root!r}, which holds {holds}."
        )


def build_model(config: Config, num_classes: int) -> nn.Module:
    """The configured network with ``num_classes`` outputs."""
    model = config.model
    options: dict[str, Any] = {
        "dropout": model.dropout,
        "dtype": model.dtype,
        "conv": model.conv,
        "remat": model.remat,
        **own_options(model.options),
    }
    if model.width != ModelConfig.width:  # each network's own, which an option may set in another way
        options["width"] = model.width
    if model.name.startswith("srtg_"):
        options |= dataclasses.asdict(model.srtg)
    network = models.build(model.name, num_classes, **options)
    regularization = dataclasses.asdict(model.class_regularization)
    if regularization.pop("enabled"):
        return class_regularized(model.name, network, **regularization)
    if model.u2s.enabled:
        names = ("variant", "oracle", "shared_stages", "mask_function", "regularization")
        return universal_to_specific(network, **{name: getattr(model.u2s, name) for name in names})
    return network


def own_options(options: tuple[str, ...]) -> dict[str, Any]:
    """The options of ``model.options``; a value is what JSON says, and a text where it says nothing.

    >>> own_options(("pool=soft", "expansion=4", "zero_init=false", "window=[1, 8, 8]"))
    {'pool': 'soft', 'expansion': 4, 'zero_init': False, 'window': [1, 8, 8]}
    """
    found: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name.isidentifier() or name in found:
            raise ValueError(f"model.options must hold each option once, as name=value, received {option!r}.")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def train_clips(config: Config, class_names: tuple[str, ...]) -> TrainClips:
    """How training clips are cut out."""
    return TrainClips(
        num_frames=config.data.num_frames,
        frame_stride=config.data.frame_stride,
        sampler=config.data.sampler,
        short_side=config.data.short_side,
        crop_size=config.data.crop_size,
        flip=config.data.flip,
        mirror=mirrored_labels(config.data.mirror, class_names),
        modality=config.data.modality,
    )


def eval_clips(config: Config) -> EvalClips:
    """How the views of an evaluation are cut out."""
    return EvalClips(
        num_frames=config.data.num_frames,
        frame_stride=config.data.frame_stride,
        num_clips=config.eval.num_clips,
        num_crops=config.eval.num_crops,
        short_side=config.eval.short_side,
        crop_size=config.eval.crop_size,
        frame_order=config.eval.frame_order,
        sampler=config.data.sampler,
    )


def evaluation_batches(
    config: Config,
    dataset: VideoDataset,
    mesh: jax.sharding.Mesh,
    quarantine: Quarantine,
    cache: FrameCache | None = None,
) -> Batches:
    """Every video of a split once, with its views, as an evaluation sees them: this host's share of the batches.

    Where ``eval.batch_size`` does not fit the devices, batches are as much larger as it takes: each device has as many
    rows as padding every batch would give it, and what is left over in the last batch is padding that nobody counts.

    Args:
      config: of the run.
      dataset: the split.
      mesh: the devices.
      quarantine: told of videos that cannot be decoded.
      cache: given again, it still has the frames that it kept the last time.
    """
    return eval_batches(
        dataset,
        eval_clips(config),
        batch_size=sharding.fitting_batch_size(config.eval.batch_size, mesh),
        num_workers=config.data.num_workers,
        shard=sharding.host_shard(),
        quarantine=quarantine,
        seed=config.train.seed,
        cache=cache,
    )


def mirrored_labels(pairs: tuple[str, ...], class_names: tuple[str, ...]) -> tuple[int, ...] | None:
    """The label of each class after a horizontal flip, or None where a flip changes no label.

    >>> mirrored_labels(("left=right",), ("left", "right", "up"))
    (1, 0, 2)
    """
    if not pairs:
        return None
    labels = list(range(len(class_names)))
    for pair in pairs:
        names = pair.split("=")
        for name in names:
            if name not in class_names:
                raise ValueError(f"data.mirror must name classes of the data set, received {name!r} in {pair!r}.")
        a, b = (class_names.index(name) for name in names)
        labels[a], labels[b] = b, a
    return tuple(labels)


def preprocessing(config: Config) -> dict[str, Any]:
    """What turns a video into the network's input; travels in every checkpoint."""
    return {
        "color": config.data.color,
        "mean": list(config.data.mean),
        "std": list(config.data.std),
        "num_frames": config.data.num_frames,
        "frame_stride": config.data.frame_stride,
        "short_side": config.eval.short_side,
        "crop_size": config.eval.crop_size,
    }
