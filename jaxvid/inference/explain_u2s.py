"""What the pictures of U2S show of a run, collected in passes over its evaluation's videos and from its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import flax.traverse_util
import jax
import numpy as np

from jaxvid import evaluation
from jaxvid.data.quarantine import Quarantine
from jaxvid.data.records import VideoDataset
from jaxvid.evaluation.class_similarity import average_similarity, class_similarity, order_by_similarity
from jaxvid.evaluation.confusion import writable_names
from jaxvid.evaluation.metrics import ClassificationState
from jaxvid.train import assemble, sharding
from jaxvid.train.captured import OpenNetwork
from jaxvid.train.loop import predict
from jaxvid.train.run import Run, eval_split, load_run
from jaxvid.train.similarity import class_sparsities
from jaxvid.train.stage_folders import stages_folder
from jaxvid.train.writers import Progress

_ONE_PASS = "universal"  # the stage whose network is trained without U2S


@dataclass(frozen=True)
class Asked:
    """What is explained: a run, where results go, who is told of progress, and the config's overrides."""

    run: Run
    folder: Path
    progress: Progress
    overrides: Mapping[str, Any]

    def quarantine(self) -> Quarantine:
        """The list of videos that cannot be decoded."""
        return Quarantine(self.folder / "quarantine.jsonl", self.run.config.data.max_bad_fraction)


def require_u2s(run: Run, method: str) -> None:
    """Raises ``ValueError`` where a run has no universal and category-specific network."""
    if not run.config.model.u2s.enabled:
        raise ValueError(
            f"{method} explains a run with model.u2s.enabled=true, received {run.checkpoint} with "
            f"{run.config.model.name!r} and no U2S."
        )


def collect_similarity(asked: Asked, against: str | Path | None = None) -> dict[str, Any]:
    """The classes' average similarity and accuracy in the one-pass, universal, specific and fused networks.

    Similarities are those of each network's own features behind its last stage, on the evaluation's videos. Fused
    features are those of the universal and the specific network side by side; their accuracy is the final one.

    Args:
      asked: the run.
      against: the one-pass network; the stage ``universal`` of the same run by default. Without either it is left out.

    Raises:
      ValueError: the one-pass run has other classes, or U2S.
    """
    run, last, one_pass = asked.run, _last_stage(asked.run), _one_pass(asked, against)
    dataset, specific = eval_split(run, asked.progress), f"u2s/specific/{last}"
    sparsities = class_sparsities(
        run, dataset, asked.quarantine(), (last, specific), asked.progress.evaluating(len(dataset))
    )
    shares = {"universal": sparsities[last].shares, "specific": sparsities[specific].shares}
    shares["fused"] = np.concatenate(list(shares.values()), axis=1)
    predictions = _predictions(asked, run, dataset)
    networks = evaluation.network_predictions(predictions)
    accuracy = {"universal": networks["universal"], "specific": networks["specific"], "fused": predictions}
    if one_pass is not None:
        (counted,) = class_sparsities(
            one_pass, dataset, asked.quarantine(), (_last_stage(one_pass),), asked.progress.evaluating(len(dataset))
        ).values()
        shares = {"one-pass": counted.shares, **shares}
        accuracy = {"one-pass": _predictions(asked, one_pass, dataset), **accuracy}
    seen = np.flatnonzero(sparsities[last].positions > 0)  # of the others nothing is known
    distance = run.config.model.u2s.distance
    return {
        "similarity": {
            name: average_similarity(class_similarity(rows[seen], distance)) for name, rows in shares.items()
        },
        "accuracy": {name: class_accuracies(part)[seen] for name, part in accuracy.items()},
        "class_names": writable_names(run.class_names, seen),
        "title": _named([run.checkpoint])[0],
        "notes": [f"one-pass: left out, since {run.checkpoint} has no stage {_ONE_PASS!r} and no against was given"]
        * (one_pass is None),
    }


def collect_weights(asked: Asked, against: str | Path | None = None) -> dict[str, Any]:
    """The weights by which the specific classifier, and the mask network, tell the classes apart.

    Args:
      asked: the run, which says which classes are confused.
      against: another run, for example one that was trained with ``model.u2s.regularization=0``.

    Raises:
      ValueError: the run's variant knows no confused classes, or the other run has other classes or no such network.
    """
    run = asked.run
    statistics = flax.traverse_util.flatten_dict(dict(run.variables["batch_stats"]), sep="/")
    if "u2s/confusing" not in statistics:
        raise ValueError(
            f"u2s_weights must be given a run that knows which classes are confused, received {run.checkpoint} with "
            f"model.u2s.variant={run.config.model.u2s.variant!r}."
        )
    compared = [run]
    if against is not None:
        compared.append(_other_run(asked, against))
        require_u2s(compared[1], "u2s_weights")
    names = _named([each.checkpoint for each in compared])
    runs = {name: class_kernels(each) for name, each in zip(names, compared, strict=True)}
    common = [kind for kind in class_kernels(run) if all(kind in kernels for kernels in runs.values())]
    confusing = np.asarray(statistics["u2s/confusing"], np.float64)
    return {
        "kernels": {kind: {name: kernels[kind] for name, kernels in runs.items()} for kind in common},
        "confusing": confusing,
        "class_names": writable_names(run.class_names),
        "order": order_by_similarity(np.clip((confusing + confusing.T) / 2, 0, 1)).tolist(),
    }


def collect_features(asked: Asked, classes: Sequence[str] = ()) -> dict[str, Any]:
    """Pooled features of the clips of two classes, in the universal and in the specific network.

    Args:
      asked: the run.
      classes: two names; by default the pair that the universal network confuses most often.

    Raises:
      ValueError: not two classes, or none are confused.
    """
    run, last = asked.run, _last_stage(asked.run)
    dataset, pair = eval_split(run, asked.progress), class_labels(classes, run.class_names)
    if classes and len(pair) != 2:
        raise ValueError(f"u2s_tsne must be given 2 different classes, received {', '.join(classes)}.")
    if pair:
        dataset = _of_classes(dataset, pair)
    blocks = {"universal": last, "specific": f"u2s/specific/{last}"}
    apply = OpenNetwork(run.apply).with_outputs(tuple(blocks.values()), ("side",), _pool)
    mesh = sharding.make_mesh(run.config.train.mesh)
    with assemble.evaluation_batches(run.config, dataset, mesh, asked.quarantine()) as batches:
        predictions = evaluation.evaluate(
            apply,
            sharding.replicate(run.variables, mesh),
            batches,
            num_classes=len(run.class_names),
            put=lambda batch: sharding.put(batch, mesh),
            progress=asked.progress.evaluating(len(dataset)),
            num_clips=len(dataset),
        )
    networks = evaluation.network_predictions(predictions)
    pair = pair or most_confused_pair(networks["universal"])
    chosen = np.flatnonzero(np.isin(predictions.labels, pair) & predictions.decoded)
    labels = predictions.labels[chosen]
    return {
        "features": {name: predictions.side[block][chosen].mean(axis=1) for name, block in blocks.items()},
        "labels": (labels == pair[1]).astype(np.int64),
        "correct": {name: networks[name].scores[chosen].argmax(axis=1) == labels for name in blocks},
        "class_names": writable_names(run.class_names, pair),
        "clip_names": [dataset[int(id)].name for id in predictions.ids[chosen]],
    }


def class_labels(given: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """The labels of classes: each given word is a name, or several joined by commas.

    >>> class_labels(["b,a"], ["a", "b", "a, then b"]), class_labels(["a, then b"], ["a", "b", "a, then b"])
    ([1, 0], [2])
    """
    names = list(class_names)
    words = [word for text in given for word in ([text] if text in names else text.split(","))]
    for word in words:
        if word not in names:
            listed = f"{', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
            raise ValueError(f"classes must be among the run's ({listed}), received {word!r}.")
    return list(dict.fromkeys(names.index(word) for word in words))


def most_confused_pair(predictions: evaluation.Predictions) -> list[int]:
    """The two classes whose clips are taken for each other most often; of equal pairs the first.

    Raises:
      ValueError: no clip is taken for another class.
    """
    confusion = ClassificationState.from_predictions(predictions).confusion[:, :-1]
    mistakes = np.triu(confusion + confusion.T, 1)
    if not mistakes.any():
        raise ValueError("classes must be given where the universal network confuses none, received none.")
    first, second = np.unravel_index(int(mistakes.argmax()), mistakes.shape)
    return [int(first), int(second)]


def class_accuracies(predictions: evaluation.Predictions) -> np.ndarray:
    """The accuracy of each class, ``float64[K]``; NaN of a class without clips."""
    confusion = ClassificationState.from_predictions(predictions).confusion
    counts = confusion.sum(axis=1)
    return np.where(counts > 0, np.diag(confusion) / np.maximum(counts, 1), np.nan)


def class_kernels(run: Run) -> dict[str, np.ndarray]:
    """The kernels ``float[C K]`` of a U2S network that have a column for each class, by what they are of."""
    params = flax.traverse_util.flatten_dict(dict(run.variables["params"]), sep="/")
    places = {"specific classifier": "u2s/specific/head/classifier/kernel", "mask network": "u2s/mask/kernel"}
    return {
        kind: np.asarray(params[place], np.float32).reshape(-1, len(run.class_names))
        for kind, place in places.items()
        if place in params
    }


def _pool(outputs: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The mean over time and space of what blocks return; what is sown is left as it is."""
    return {
        name: value if name.startswith("side/") else value.astype(np.float32).mean(axis=(1, 2, 3))
        for name, value in outputs.items()
    }


def _predictions(asked: Asked, run: Run, dataset: VideoDataset) -> evaluation.Predictions:
    mesh = sharding.make_mesh(run.config.train.mesh)
    variables = sharding.replicate(run.variables, mesh)
    return predict(run.config, dataset, run.apply, variables, mesh, asked.folder, asked.progress)


def _one_pass(asked: Asked, against: str | Path | None) -> Run | None:
    if against is not None:
        other = _other_run(asked, against)
        if other.config.model.u2s.enabled:
            raise ValueError(
                f"against must be a run with model.u2s.enabled=false for u2s_similarity, received {other.checkpoint} "
                f"with model.u2s.enabled=true."
            )
        return other
    whole = stages_folder(asked.run.checkpoint)
    if whole is None or not (whole / _ONE_PASS / "checkpoints").is_dir():
        return None
    return _other_run(asked, whole / _ONE_PASS)


def _other_run(asked: Asked, checkpoint: str | Path) -> Run:
    overrides = {name: value for name, value in asked.overrides.items() if not name.startswith("model.u2s.")}
    other = load_run(checkpoint, overrides)
    if other.class_names != asked.run.class_names:
        raise ValueError(
            f"against must be a run of the same {len(asked.run.class_names)} classes in the same order, received "
            f"{other.checkpoint} with {len(other.class_names)} that differ."
        )
    return other


def _of_classes(dataset: VideoDataset, labels: Iterable[int]) -> VideoDataset:
    chosen = [record for record in dataset if record.label in set(labels)]
    if not chosen:
        raise ValueError(f"the split {dataset.split!r} must hold videos of the classes, received none.")
    records = [dataclasses.replace(record, id=id) for id, record in enumerate(chosen)]
    return VideoDataset(dataset.name, dataset.split, dataset.class_names, records)


def _last_stage(run: Run) -> str:
    return f"stage{len(cast(Any, run.model).stage_sizes)}"


def _named(checkpoints: Sequence[Path]) -> list[str]:
    """Names of runs: the ends of their paths, two parts or as many more as tell them apart.

    >>> _named([Path("/a/digits/joint")]), _named([Path("/a/x/digits/joint"), Path("/a/y/digits/joint")])
    (['digits/joint'], ['x/digits/joint', 'y/digits/joint'])
    """
    parts = [path.resolve().parts for path in checkpoints]
    for length in range(2, max(2, *map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{'/'.join(each[-2:])} ({n})" for n, each in enumerate(parts, 1)]
