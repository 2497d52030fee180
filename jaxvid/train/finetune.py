"""Training that starts from another run's weights and changes only some parts of the network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import optax

from jaxvid.config import Config
from jaxvid.nn.mtconv import MTConv
from jaxvid.nn.normalization import BatchNorm
from jaxvid.train.checkpoint import load_for_evaluation
from jaxvid.train.state import TrainState
from jaxvid.types import Array, Size3, Variables

BLOCKS = ("stem", "stage1", "stage2", "stage3", "stage4", "head")
"""The blocks of every network, in the order of its computation."""

_ADDED = ("class_regularization", "u2s")  # what can be added to a network that was trained without
_COPIED = ("u2s", "specific")  # of which the network itself has the like
_CLASSIFIER = ("head", "classifier")
_OF_CLASSES = (_CLASSIFIER, (*_COPIED, *_CLASSIFIER), ("u2s", "mask"), ("u2s", "confusing"))  # with K outputs or rows


def trains(path: tuple[str, ...], trainable: Sequence[str]) -> bool:
    """Whether a parameter or module is trained: it lies in one of the named parts, or no part is named.

    >>> trains(("stage4", "block0", "conv1", "kernel"), ("stage4", "head")), trains(("stem", "norm"), ("head",))
    (True, False)
    """
    return not trainable or any(path[: len(part)] == part for part in (tuple(name.split("/")) for name in trainable))


def check_trainable(params: Any, trainable: Sequence[str]) -> None:
    """Raises ``ValueError`` where a part of the network is named that has no parameters."""
    paths = list(_flat(params))
    for name in trainable:
        if not any(trains(path, (name,)) for path in paths):
            parts = ", ".join(dict.fromkeys(path[0] for path in paths))
            raise ValueError(
                f"finetune.trainable must name parts of the network ({parts}; deeper ones with a slash), "
                f"received {name!r}."
            )


def last_frozen_block(trainable: Sequence[str], regularized: Sequence[str] = ()) -> str:
    """The last of the blocks from the stem on whose output does not change: training can begin behind it.

    Args:
      trainable: the parts that change.
      regularized: the stages with Class Regularization, whose output follows the classifier's weights.

    >>> last_frozen_block(("head", "stage4/block1"))
    'stage3'
    >>> last_frozen_block(("class_regularization",), ("stage2", "stage3", "stage4"))
    'stage1'

    Raises:
      ValueError: the stem changes, or no part is named.
    """
    parts = [name.split("/")[0] for name in trainable]
    known = {*BLOCKS, *["class_regularization"] * bool(regularized)}
    changing = [BLOCKS.index(part) for part in (*parts, *regularized) if part in BLOCKS]
    if not parts or not changing or min(changing) == 0 or not known.issuperset(parts):
        raise ValueError(
            f"finetune.trainable must name parts of {', '.join(BLOCKS[1:])} with finetune.draws, received "
            f"finetune.trainable={tuple(trainable)}."
        )
    return BLOCKS[min(changing) - 1]


def split(params: Any, trainable: Sequence[str]) -> tuple[Any, Any]:
    """The parameters that are trained and those that are not, each as flat ``{path: leaf}``."""
    flat = _flat(params)
    trained = {path: leaf for path, leaf in flat.items() if trains(path, trainable)}
    return trained, {path: leaf for path, leaf in flat.items() if path not in trained}


def join(trained: Any, frozen: Any) -> Any:
    """The inverse of :func:`split`."""
    return flax.traverse_util.unflatten_dict({**frozen, **trained})


def only(optimizer: optax.GradientTransformation, trainable: Sequence[str]) -> optax.GradientTransformation:
    """The optimiser for the parts that are trained; it keeps no moments of the others and leaves them as they are."""
    if not trainable:
        return optimizer

    def labels(params: Any) -> Any:
        named = {path: "trained" if trains(path, trainable) else "frozen" for path in _flat(params)}
        return flax.traverse_util.unflatten_dict(named)

    return optax.partition({"trained": optimizer, "frozen": optax.set_to_zero()}, labels)


def frozen_as_in_evaluation(trainable: Sequence[str]) -> contextlib.AbstractContextManager[Any]:
    """Within it the BatchNorms, dropouts and random poolings of frozen parts do what they do in evaluation.

    The running statistics stay.
    """
    if not trainable:
        return contextlib.nullcontext()

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name == "__call__" and not trains(module.path, trainable):
            if isinstance(module, BatchNorm):
                return call(args[0], True)
            if isinstance(module, nn.Dropout):
                return call(args[0], deterministic=True)
            if isinstance(module, MTConv) and not any(_within(part, module.path) for part in trainable):
                return call(args[0], False)  # which may draw what it pools
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


@dataclass(frozen=True)
class Beginning:
    """Where a network begins whose first blocks' output is known.

    Attributes:
      block: whose output is given.
      structure: of that output, as ``jax.tree.structure`` gives it: one array in most networks, a pair in SlowFast.
      clip_shape: ``(T, H, W)`` of the clips that it was made of.
    """

    block: str
    structure: Any
    clip_shape: Size3

    @contextlib.contextmanager
    def outputs(self, batch: Mapping[str, Array]) -> Iterator[jax.Array]:
        """Within it the block returns the batch's ``features0``, ``features1``, …; yields what stands for the video.

        That is NaN, and the compiler drops whatever is computed of it: a network that did read it would be noticed.
        """
        leaves = [batch[f"features{index}"] for index in range(self.structure.num_leaves)]
        output = jax.tree.unflatten(self.structure, leaves)

        def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
            if context.method_name == "__call__" and context.module.path == (self.block,):
                return output
            return call(*args, **kwargs)

        with nn.intercept_methods(intercept):
            yield jnp.full((len(leaves[0]), *self.clip_shape, 3), jnp.nan, jnp.float32)

    def runs(self, path: tuple[str, ...]) -> bool:
        """Whether the module at ``path`` is behind the block."""
        return BLOCKS.index(path[0]) > BLOCKS.index(self.block)


def start_from(
    state: TrainState, config: Config, class_names: Sequence[str], *, run: Path | None = None
) -> tuple[TrainState, str]:
    """The first state of a run with the weights of another one, and a sentence that says so, and what differs.

    What belongs to single classes (classifiers, U2S' masks and what is confused) stays as it was drawn where the other
    run has other classes, and so do Class Regularization and what U2S adds where the other run has none; but U2S'
    specific network begins as a copy of the other run's network, unless ``model.u2s.start`` is ``random``. Everything
    else must fit.

    Args:
      state: the state before the first step.
      config: of this run; ``finetune.weights`` is a run folder, or one step of it.
      class_names: of this run.
      run: what ``{run}`` stands for in ``finetune.weights``.

    Raises:
      FileNotFoundError: there is no such run.
      ValueError: it is of another network, or its network sees its pixels otherwise than ``data`` says.
    """
    source = config.finetune.weights.replace("{run}", str(run))
    variables, meta = load_for_evaluation(source)
    _check_pixels(config, meta["preprocessing"], source)
    same_classes = list(class_names) == meta["class_names"]
    before = _flat(dict(variables["params"]))
    if config.model.u2s.enabled and config.model.u2s.start == "universal":
        variables = _with_copies(variables)
    params = _fitted(state.params, variables, "params", source, same_classes)
    batch_stats = _fitted(state.batch_stats, variables, "batch_stats", source, same_classes)
    ema = None if state.ema_params is None else jax.tree.map(jnp.copy, params)
    kept = "the classifiers, the masks and what is confused" if ("u2s", "mask", "bias") in before else "the classifier"
    head = "" if same_classes else f", but for {kept}: the {len(class_names)} classes are other ones"
    given = _flat(dict(variables["params"]))
    added = [path for path in _flat(state.params) if path[0] in _ADDED and path not in given]
    copied = any(path[: len(_COPIED)] == _COPIED and path in given and path not in before for path in _flat(params))
    new = f"; {'/'.join(_COPIED)} begins as its copy" if copied else ""
    new += f"; new: {', '.join(_named(added))}" if added else ""
    seen, sees = meta["config"].get("data", {}).get("modality", "rgb"), config.data.modality
    other = f"; they were trained on {seen}, here they see {sees}" if seen != sees else ""
    message = f"Starting from the weights of {Path(source).name} (step {meta['step']}){head}{new}{other}."
    return state.replace(params=params, batch_stats=batch_stats, ema_params=ema), message


def _with_copies(variables: Variables) -> Variables:
    """The variables with those of the network once more, where U2S' specific network would have its own."""
    copied = {}
    for name in ("params", "batch_stats"):
        flat = _flat(dict(variables[name]))
        copies = {(*_COPIED, *path): leaf for path, leaf in flat.items() if path[0] in BLOCKS}
        copied[name] = flax.traverse_util.unflatten_dict(copies | flat)
    return {**variables, **copied}


def _named(paths: Sequence[tuple[str, ...]], limit: int = 12) -> list[str]:
    """Parameters by their paths; of many, the parts that they are in, with their number."""
    if len(paths) <= limit:
        return ["/".join(path) for path in paths]
    parts = ["/".join(path[:3]) for path in paths]
    return [f"{part} ({parts.count(part)})" for part in dict.fromkeys(parts)]


def _flat(tree: Any) -> dict[tuple[str, ...], Any]:
    return flax.traverse_util.flatten_dict(tree)


def _within(name: str, path: tuple[str, ...]) -> bool:
    """Whether the part of this name lies in the module at ``path``.

    >>> _within("stage4/block0", ("stage4",)), _within("stage4", ("stage4", "block0"))
    (True, False)
    """
    return tuple(name.split("/"))[: len(path)] == path


def _fitted(ours: Any, variables: Variables, collection: str, source: str, same_classes: bool) -> Any:
    given = _flat(dict(variables[collection]))
    fitted = {}
    for path, leaf in _flat(ours).items():
        of_classes = any(path[: len(part)] == part for part in _OF_CLASSES)
        if (of_classes and not same_classes) or (path[0] in _ADDED and path not in given):
            fitted[path] = leaf
        elif path not in given or given[path].shape != leaf.shape:
            found = f"{list(given[path].shape)}" if path in given else "none"
            raise ValueError(
                f"finetune.weights must be of this network, whose {'/'.join(path)} is {list(leaf.shape)}, received "
                f"{found} in {source}."
            )
        else:
            fitted[path] = jnp.array(given[path], leaf.dtype)
    return flax.traverse_util.unflatten_dict(fitted)


def _check_pixels(config: Config, saw: dict[str, Any], source: str) -> None:
    """Weights that see other numbers than they were trained on are the commonest silent error of fine-tuning."""
    for name, wanted in (("color", saw["color"]), ("mean", saw["mean"]), ("std", saw["std"])):
        value = getattr(config.data, name)
        value = value if isinstance(value, str) else list(value)
        if value != wanted:
            raise ValueError(f"data.{name} must be {wanted}, as the weights of {source} saw it, received {value}.")
