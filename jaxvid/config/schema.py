"""The schema: every field of a config with its type, its default and its meaning.

A field exists only when two checked-in configs differ in it or a user must set it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

StageName: TypeAlias = Literal["universal", "specific", "joint"]
"""The stages of a U2S run in their order: the network by itself; what U2S adds, the rest frozen; everything."""


@dataclass(frozen=True)
class SRTGConfig:
    """Squeeze-and-Recursion and its temporal gate (thesis chapter 4), for models named ``srtg_...``."""

    cell: Literal["lstm", "peephole_lstm", "gru", "rnn"] = "lstm"
    num_layers: int = 2
    gate: Literal["none", "cyclic"] = "none"  # none: x * RNN(pool x) | cyclic: only where the cyclic consistency holds
    gate_gradient: Literal["hard", "straight_through"] = "hard"  # hard: closed gates pass no gradient to their cell
    init: Literal["identity", "torch"] = (
        "identity"  # identity: starts as (nearly) the plain network | torch: as the authors
    )
    placement: Literal["start", "top", "mid", "end", "res", "final"] = "final"


@dataclass(frozen=True)
class ClassRegularizationConfig:
    """Class Regularization behind the stages of any network (thesis chapter 6)."""

    enabled: bool = False
    affection_rates: tuple[float, ...] = ()  # of the last stages, 1: as without; (): 0.9, 0.8, 0.7, 0.6, I3D the last 3
    normalization: Literal["recommended", "literal"] = "recommended"  # factors around 1 | the printed formula, below 1
    scope: Literal["selected", "all"] = "selected"  # minimum and maximum of the chosen class's weights | of all classes
    class_choice: Literal["sum", "elementwise"] = "sum"  # largest weighted sum of the features | largest term of one
    train_affection_rate: bool = False
    use_bias: bool = False  # of the map from the classifier's channels to the stage's


@dataclass(frozen=True)
class U2SConfig:
    """A second network that looks again at the classes that the network confuses (Zhao et al. 2020)."""

    enabled: bool = False
    variant: Literal["full", "simple", "soft", "no_mask", "non_local"] = "full"  # rows a to e of the paper's table III
    oracle: bool = False  # masks of the true class, not of the predicted one: an upper bound, which needs labels
    shared_stages: int = 2  # that both networks share besides the stem
    mask_function: Literal["sigmoid", "identity"] = "sigmoid"  # of the masks, before features are multiplied by them
    regularization: float = 0.5  # weight in the loss: similarity of the weights of confused masks
    start: Literal["universal", "random"] = "universal"  # of the specific network: the universal one's weights | drawn
    similarity: str = ""  # the npz of the classes' similarity; "{run}" is the folder of a run with train.stages
    distance: Literal["cosine", "l1"] = "cosine"  # of two classes' sparsity
    num_confusing: float = 0.0  # other classes that one is confused with, on average; 0: as many as top_accuracy asks
    top_accuracy: float = 0.9  # the smallest N whose top-N accuracy on eval_split is this is taken


@dataclass(frozen=True)
class ModelConfig:
    """The network: a name of ``jaxvid.models.MODELS`` and what a user may change of it."""

    name: str = "srtg_r3d_18"
    width: int = 64  # channels of a ResNet's stage 1; 64 is the paper's size of every network
    dropout: float = 0.0  # before the classifier
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the activations; parameters stay float32
    conv: Literal["auto", "direct", "folded", "shifted", "pallas"] = (
        "auto"  # formulation of the 3-D convolution | shifted, pallas: of an X3D's depthwise ones, the others auto
    )
    remat: bool = False  # compute activations inside of blocks again in the backward pass: less memory, more time
    options: tuple[str, ...] = ()  # "name=value" of this network's own builder, as ("pool=soft", "expansion=4")
    srtg: SRTGConfig = field(default_factory=SRTGConfig)
    class_regularization: ClassRegularizationConfig = field(default_factory=ClassRegularizationConfig)
    u2s: U2SConfig = field(default_factory=U2SConfig)


@dataclass(frozen=True)
class DataConfig:
    """Which videos, and how one clip is cut out of each."""

    name: str = "motion"  # a name of jaxvid.data.DATASETS
    root: str = ""  # folder of the data set; empty: the default place of an embedded one
    annotations: str = ""  # annotation file (CSV or split file) of the data sets that need one
    dictionary: str = ""  # srtg_csv: JSON file {label: index} that orders the classes; empty: sorted labels
    missing: Literal["", "keep", "error"] = (
        ""  # listed videos that are not there; empty: what the reader does by itself
    )
    train_split: str = "train"  # with `folds`, both split names hold "{fold}"
    eval_split: str = "val"
    folds: tuple[str, ...] = ()  # cross-validation: one run per fold, in WORKDIR/FOLD, and one report over all
    val_fraction: float = 0.0  # folder data without val/: this share of each class is held out
    num_frames: int = 16
    frame_stride: int = 1
    sampler: Literal["random", "normal", "segments", "uniform", "dense"] = "random"  # where a training clip is cut out
    short_side: tuple[int, int] = (72, 72)  # training: the short side is drawn from this closed range (pixels)
    crop_size: int = 64  # training and evaluation crops are square (pixels)
    flip: bool = False  # horizontal flip with probability 1/2
    mirror: tuple[str, ...] = ()  # "left=right" pairs: classes that a horizontal flip exchanges
    modality: Literal["rgb", "flow"] = "rgb"  # flow: `root` is a folder of `jaxvid data flow`; a flip negates channel u
    color: Literal["RGB", "BGR"] = "RGB"  # order of the channels that the network is given, and of mean and std
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)  # per channel, of pixels in [0, 1]
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)
    num_workers: int = 0  # decoding processes; 0 decodes in threads of the training process
    cache_gib: float = 0.0  # decoded frames kept in memory for later epochs, GiB over all decoding processes; 0: none
    max_bad_fraction: float = 0.1  # more undecodable videos than this share end the run


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser. Weight decay never touches normalisation parameters and biases."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    base_batch_size: int = 0  # linear scaling rule: the rate belongs to this batch size; 0 leaves it unscaled
    momentum: float = 0.9  # sgd
    nesterov: bool = False  # sgd
    weight_decay: float = 1e-5
    clip_norm: float = 0.0  # global gradient norm; 0 does not clip
    ema_decay: float = 0.0  # exponential moving average of the parameters, used in evaluation; 0 keeps none


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rate over the run, in epochs (fractions are allowed)."""

    name: Literal["constant", "step", "cosine"] = "cosine"
    warmup_epochs: float = 0.0
    boundaries: tuple[float, ...] = ()  # step: epochs at which the rate is multiplied by `factor`
    factor: float = 0.1
    final_fraction: float = 0.0  # cosine: the last rate as a share of the first


@dataclass(frozen=True)
class FinetuneConfig:
    """Training that begins with another run's weights."""

    weights: str = ""  # a run folder, or one step of it; "{fold}" is the fold, "{run}" as in model.u2s; empty: none
    trainable: tuple[str, ...] = ()  # parts that change, as ("stage4", "head"); the others as in evaluation; (): all
    draws: int = 0  # clips drawn of each video, which the frozen first blocks see once | 0: new ones in every epoch


@dataclass(frozen=True)
class CheckpointConfig:
    """When a checkpoint is written and which ones stay."""

    every_steps: int = 0  # 0: at the end of every epoch only
    keep_last: int = 2
    keep_best: int = 1  # by eval/top1


@dataclass(frozen=True)
class TrainConfig:
    """The length of the run and what every step does."""

    stages: tuple[tuple[StageName, float, float], ...] = ()  # (name, epochs, factor of the learning rate) of each
    num_epochs: float = 10.0
    max_steps: int = 0  # ends the run, or each of its stages, earlier; 0: does not
    batch_size: int = 32  # clips over all devices and hosts
    label_smoothing: float = 0.0
    seed: int = 0
    cpu_devices: int = 1  # devices that one host's CPU is split into; more of them keep more cores busy
    mesh: tuple[tuple[str, int], ...] = (("data", -1),)  # axes of the device mesh; -1: all devices that are left
    tensorboard: bool = True


@dataclass(frozen=True)
class EvalConfig:
    """Multi-view evaluation: num_clips x num_crops views of each video, softmax averaged."""

    every_epochs: float = 1.0
    batch_size: int = 32  # videos
    num_clips: int = 1
    num_crops: Literal[1, 3] = 1  # 1: centre | 3: left, centre, right (or top, centre, bottom)
    short_side: int = 72
    crop_size: int = 64
    frame_order: Literal["natural", "shuffled", "reversed", "frozen"] = "natural"  # does it look at motion at all?


@dataclass(frozen=True)
class Config:
    """One experiment."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)


STAGE_NAMES: tuple[str, ...] = get_args(StageName)


def to_dict(config: Config) -> dict[str, Any]:
    """The config as plain JSON-able values; ``load(to_dict(config)) == config``."""
    return _plain(dataclasses.asdict(config))


def flatten(config: Config) -> dict[str, Any]:
    """Every field by its dotted name, in the schema's order."""
    return dict(_leaves(dataclasses.asdict(config), ""))


def _leaves(tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return value
