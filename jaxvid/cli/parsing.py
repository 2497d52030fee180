"""The words of the command line: what each command takes, and one sentence for what it does not."""

from __future__ import annotations

import argparse
import difflib
from typing import Any, NoReturn

import jaxvid
from jaxvid.cli import commands, data_commands
from jaxvid.cli.usage import UsageError

_EXAMPLES = {
    "": """examples:
  jaxvid doctor                                                     is this machine ready?
  jaxvid train --config=configs/motion.py --workdir=runs/motion     train; the same command goes on after a stop
  jaxvid eval --checkpoint=runs/motion                              evaluate what was trained
  jaxvid predict runs/motion clip.mp4                               what is seen in this video?
""",
    "train": """examples:
  jaxvid train --config=configs/motion.py --workdir=runs/motion
  jaxvid train --config=configs/motion.py:r3d_18 --workdir=runs/plain --config.optimizer.learning_rate=0.001
  jaxvid train --config=configs/folder.py --workdir=runs/mine --config.data.root=videos --config.data.val_fraction=0.2
""",
    "eval": """examples:
  jaxvid eval --checkpoint=runs/motion
  jaxvid eval --checkpoint=runs/motion --best --config.eval.num_clips=10 --config.eval.num_crops=3
  jaxvid eval --checkpoint=runs/motion --config.eval.frame_order=shuffled --output=runs/motion/eval-shuffled
""",
    "compare": """examples:
  jaxvid compare runs/with runs/without
  jaxvid compare runs/with runs/without --json > compared.json
  jaxvid compare runs/motion runs/motion/eval-shuffled --output=runs/motion/compare
""",
    "fuse": """examples:
  jaxvid fuse runs/rgb runs/flow
  jaxvid fuse runs/rgb runs/flow --output=runs/two-streams && jaxvid compare runs/two-streams runs/rgb
  jaxvid fuse runs/rgb runs/flow runs/big --weights=1,1.5,1 --json

Scores (softmax, averaged over views) are averaged with weights. Those are searched on one part of the clips and tried
on the other, fold by fold, so that no clip's label decides on its own weights.
""",
    "predict": """examples:
  jaxvid predict runs/motion clip.mp4
  jaxvid predict runs/motion clip.mp4 videos --top=3 --csv=seen.csv
  jaxvid predict runs/motion videos --json --config.eval.num_clips=10 --config.eval.num_crops=3 > seen.jsonl
  jaxvid predict --checkpoint=runs/motion --best videos --output=seen --annotate=seen/videos
""",
    "explain": """examples:
  jaxvid explain runs/u2s --method=u2s_masks --output=masks --num_videos=12        the masks over the frames
  jaxvid explain runs/u2s clip.mp4 videos --method=u2s_masks --output=masks --classes=bend,break
  jaxvid explain runs/u2s --method=u2s_similarity --output=pictures                accuracy against similarity
  jaxvid explain runs/u2s --method=u2s_tsne --output=pictures --classes=bend,break
  jaxvid explain runs/u2s --method=u2s_weights --output=pictures --against=runs/without-regularization
""",
    "convert": """examples:
  jaxvid convert --weights=rgb_imagenet.pt --model=i3d --output=runs/i3d_k400
  jaxvid convert --weights=SRTG_r3d_34.pth --model=srtg_r3d_34 --output=runs/hacs --class_names=HACS_dictionary.json
  jaxvid convert --weights=X3D_M.pyth --model=x3d_m --output=runs/mine --num_classes=12
  jaxvid eval --checkpoint=runs/i3d_k400 --config.data.root=videos
""",
    "models": """examples:
  jaxvid models
  jaxvid models --json
  jaxvid models --markdown
  jaxvid models --cost r3d_18 srtg_r3d_18 --batch_size=16           memory and work of compiling one training step
  jaxvid models --cost --conv=direct --unoptimized --resume=cost.jsonl --markdown > cost.md   of every network: an hour
""",
    "data": """examples:
  jaxvid data make motion --root=data/motion
  jaxvid data check --config=configs/folder.py --config.data.root=videos
  jaxvid data browse --config=configs/motion.py --output=clips.png
  jaxvid data flow --config=configs/motion.py --output=data/motion-flow
""",
    "data make": """examples:
  jaxvid data make motion --root=data/motion
  jaxvid data make motion --root=data/motion --tfds
  jaxvid data make motion_fine
  jaxvid data make digits
""",
    "data check": """examples:
  jaxvid data check --config=configs/motion.py
  jaxvid data check --config=configs/folder.py --config.data.root=videos --json
""",
    "data flow": """examples:
  jaxvid data flow --config=configs/folder.py --config.data.root=videos --output=flow
  jaxvid data flow --config=configs/motion.py --output=data/motion-flow
  jaxvid data flow --config=configs/ut_interaction.py --output=flow --short_side=128 --num_workers=2

The flow (TV-L1) of each video is stored as a video of the same name, length and times: u, v and the magnitude as
128 + 127 * pixels / bound. An interrupted run goes on. Train with --config.data.root=DIR --config.data.modality=flow.
""",
    "data browse": """examples:
  jaxvid data browse --config=configs/motion.py --output=clips.png
  jaxvid data browse --config=configs/motion.py --output=clips.png --rows=20 --seed=3
""",
    "bench": """examples:
  jaxvid bench decode
  jaxvid bench pipeline
  jaxvid bench step --model=srtg_r3d_18 --width=16 --clip=16,64,64 --batch_size=16
  jaxvid bench step --model=r3d_50 --width=64 --clip=16,112,112 --batch_size=2 --class_regularization
  jaxvid bench motion --seeds=3 --workdir=runs/bench-motion         SRTG beside the plain network, over seeds
  jaxvid bench ops --json > ops.jsonl                               every operator, as a share of this machine's peak
  jaxvid bench ops --op=conv3d --plot=conv3d.png
  jaxvid bench plot ops.jsonl --output=ops.png
  jaxvid bench plot ops.jsonl --output=ops.md
""",
    "doctor": """examples:
  jaxvid doctor
  jaxvid doctor --json
""",
}


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one sentence with the nearest valid name."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see '{self.prog} --help'.")


def parse(arguments: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    """The options of a command, its function among them as ``run``, and the overrides of its config."""
    parser = _build_parser()
    arguments, overrides = _split_overrides(arguments)
    options, rest = parser.parse_known_args(arguments)
    # argparse takes what stands between options as words only once; the words after a further option are left.
    if hasattr(options, "words"):
        options.words += [word for word in rest if not word.startswith("-")]
        rest = [word for word in rest if word.startswith("-")]
    if rest:
        _unknown(parser, options, rest[0].partition("=")[0])
    if overrides and not getattr(options, "takes_overrides", False):
        raise UsageError(
            f"--config.* may only be given to a command that reads a config, received {sorted(overrides)}."
        )
    return options, overrides


def _split_overrides(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """The words without ``--config.NAME=VALUE`` and ``--config.NAME VALUE``, and the values by their names."""
    others: list[str] = []
    overrides: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith("--config."):
            others.append(word)
            continue
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"{name} must have a value ({name}=VALUE).")
            value = rest.pop(0)
        overrides[name.removeprefix("--config.")] = value
    return others, overrides


def _unknown(parser: argparse.ArgumentParser, options: argparse.Namespace, name: str) -> NoReturn:
    known = [*vars(options.parser)["_option_string_actions"], "--config.data.root"]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else f" See '{options.parser.prog} --help'."
    raise UsageError(f"{options.parser.prog} has no option {name}.{hint}")


def _build_parser() -> argparse.ArgumentParser:
    parser = _command(None, "", jaxvid.__doc__.splitlines()[0] if jaxvid.__doc__ else "")
    parser.add_argument("--version", action="version", version=f"jaxvid {jaxvid.__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    train = _command(
        subparsers, "train", "Train, or go on training, one network.", run=commands.train, takes_overrides=True
    )
    _add_config(train)
    train.add_argument("--workdir", required=True, metavar="DIR", help="run folder; resumed when it holds checkpoints")

    evaluate = _command(subparsers, "eval", "Evaluate a checkpoint.", run=commands.evaluate, takes_overrides=True)
    evaluate.add_argument("--checkpoint", required=True, metavar="DIR", help="a run folder, or one step of it")
    evaluate.add_argument("--output", metavar="DIR", help="folder of the results (default: RUN/eval)")
    evaluate.add_argument("--best", action="store_true", help="the checkpoint with the best eval/top1, not the newest")

    compare = _command(
        subparsers,
        "compare",
        "Is run A better than run B, on the clips of both, or is it chance?",
        run=commands.compare,
    )
    for run in ("RUN_A", "RUN_B"):
        compare.add_argument(
            run.lower(), metavar=run, help="an evaluated run, or the folder of an evaluation's results"
        )
    compare.add_argument("--json", action="store_true", help="the report as JSON")
    compare.add_argument("--output", metavar="DIR", help="also write compare.json, and compare.png of the classes")

    fuse = _command(subparsers, "fuse", "What are several runs worth together? Weighs their scores.", run=commands.fuse)
    fuse.usage = "jaxvid fuse RUN_A RUN_B [RUN ...] [options]"
    fuse.add_argument("words", nargs="+", metavar="RUN", help="evaluated runs, or folders of evaluations' results")
    fuse.add_argument("--weights", metavar="A,B,...", help="these weights; nothing is searched")
    fuse.add_argument("--num_folds", type=int, metavar="N", help="of the clips, for the search (default: 5)")
    fuse.add_argument("--step", type=float, metavar="S", help="of the weights that are tried (default: 0.05)")
    fuse.add_argument("--seed", type=int, metavar="N", help="of the folds (default: 0)")
    fuse.add_argument("--json", action="store_true", help="the report as JSON")
    fuse.add_argument(
        "--output", metavar="DIR", help="also write fuse.json, fuse.png and the results as of an evaluation"
    )

    predict = _command(subparsers, "predict", "Say what is seen in videos.", run=commands.predict, takes_overrides=True)
    predict.usage = "jaxvid predict RUN VIDEO [VIDEO ...] [options]"
    predict.add_argument("words", nargs="+", metavar="RUN VIDEO", help="a run folder; files and folders of videos")
    predict.add_argument("--checkpoint", metavar="DIR", help="the run folder, or one step of it; then no RUN is given")
    predict.add_argument("--best", action="store_true", help="the checkpoint with the best eval/top1, not the newest")
    predict.add_argument("--top", type=int, default=5, metavar="K", help="classes of each video (default: %(default)s)")
    predict.add_argument("--json", action="store_true", help="a line of JSON for each video")
    predict.add_argument("--csv", metavar="FILE", help="also write a table with a row for each video and class")
    predict.add_argument("--output", metavar="DIR", help="also write predictions.jsonl, and .npz with all logits")
    predict.add_argument(
        "--annotate", metavar="DIR", help="also write a copy of each video with its classes drawn on it"
    )

    explain = _command(
        subparsers, "explain", "Draw why a network says what it says.", run=commands.explain, takes_overrides=True
    )
    explain.usage = "jaxvid explain RUN [VIDEO ...] --method NAME --output DIR [options]"
    explain.add_argument("words", nargs="+", metavar="RUN VIDEO", help="a run folder; files and folders of videos")
    explain.add_argument("--method", required=True, metavar="NAME", help="u2s_masks of videos; of a whole evaluation "
                         "u2s_similarity, u2s_tsne, u2s_weights")  # fmt: skip
    explain.add_argument("--output", required=True, metavar="DIR", help="folder of pictures, films and numbers")
    explain.add_argument("--best", action="store_true", help="the checkpoint with the best eval/top1, not the newest")
    explain.add_argument(
        "--num_videos", type=int, metavar="N", help="u2s_masks: of the evaluation's, without VIDEO (default: 8)"
    )
    explain.add_argument(
        "--classes", action="append", default=[], metavar="A,B", help="u2s_masks: whose masks; u2s_tsne: which two"
    )
    explain.add_argument("--top", type=int, metavar="K", help="u2s_masks: confused classes of a video (default: 5)")
    explain.add_argument(
        "--against",
        metavar="RUN_B",
        help="u2s_weights: another run; u2s_similarity: the one-pass network, a run without U2S",
    )

    models = _command(
        subparsers, "models", "List the networks: parameters, multiply-adds, paper's figures.", run=commands.list_models
    )
    models.add_argument("names", nargs="*", metavar="NAME", help="which ones (default: all)")
    form = models.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON list; with --cost JSON lines")
    form.add_argument("--markdown", action="store_true", help="a Markdown table, as in the README")
    models.add_argument(
        "--cost", action="store_true", help="memory of one training step and what compiling it takes, on this device"
    )
    models.add_argument("--batch_size", type=int, metavar="N", help="--cost: clips on the device (default: 8)")
    models.add_argument("--dtype", metavar="NAME", help="--cost: of the activations (default: float32)")
    models.add_argument("--conv", metavar="NAME", help="--cost: auto, direct, folded (default: auto)")
    models.add_argument("--remat", action="store_true", help="--cost: activations are computed again, not kept")
    models.add_argument(
        "--unoptimized", action="store_true", help="--cost: a CPU's machine code unoptimised: as much memory, less time"
    )
    models.add_argument("--resume", metavar="FILE.jsonl", help="--cost: take finished lines from here, add new ones")

    convert = _command(
        subparsers, "convert", "Make a run of weights from elsewhere, without torch.", run=commands.convert
    )
    convert.add_argument("--weights", required=True, metavar="FILE", help="torch, safetensors, npz, msgpack or pickle")
    convert.add_argument("--model", required=True, metavar="NAME", help="a name of 'jaxvid models'")
    convert.add_argument("--output", required=True, metavar="DIR", help="the run folder; new or empty")
    convert.add_argument("--num_classes", type=int, metavar="K", help="with another number, a new classifier")
    convert.add_argument(
        "--class_names", metavar="FILE", help="one name a line, or JSON (default: label_map.txt beside the weights)"
    )
    convert.add_argument("--inflate", action="store_true", help="spread the 2-D kernels of an image network over time")
    convert.add_argument("--golden", metavar="FILE.npz", help="video and logits, to compare with")

    data = _command(subparsers, "data", "Make, check or look at videos, or compute their optical flow.")
    tools = data.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    make = _command(tools, "data make", "Make an embedded data set.", run=data_commands.make_data)
    make.add_argument("name", choices=["digits", "motion", "motion_fine"], help="which one")
    make.add_argument("--root", metavar="DIR", default="", help="where to (default: the cache folder)")
    make.add_argument("--tfds", action="store_true", help="videos: also as a TFDS data set (ArrayRecord), DIR/tfds")
    make.add_argument("--num_workers", type=int, default=None, metavar="N", help="videos: encoding processes")
    check = _command(
        tools, "data check", "Decode every video and report.", run=data_commands.check_data, takes_overrides=True
    )
    _add_config(check)
    check.add_argument("--json", action="store_true", help="the report as JSON")
    check.add_argument("--num_workers", type=int, default=None, metavar="N", help="decoding processes")
    browse = _command(
        tools,
        "data browse",
        "Draw clips as the network sees them.",
        run=data_commands.browse_data,
        takes_overrides=True,
    )
    _add_config(browse)
    browse.add_argument("--output", default="clips.png", metavar="PNG", help="the picture (default: %(default)s)")
    browse.add_argument("--rows", type=int, default=12, metavar="N", help="clips (default: %(default)s)")
    browse.add_argument("--seed", type=int, default=0, metavar="N", help="which clips (default: %(default)s)")

    flow = _command(
        tools,
        "data flow",
        "Compute the optical flow of every video.",
        run=data_commands.make_flow,
        takes_overrides=True,
    )
    _add_config(flow)
    flow.add_argument("--output", required=True, metavar="DIR", help="the folder of flow; gone on with where it exists")
    flow.add_argument(
        "--bound", type=float, default=20.0, metavar="PIXELS", help="larger displacements are clipped (default: 20)"
    )
    flow.add_argument(
        "--short_side",
        type=int,
        default=256,
        metavar="PIXELS",
        help="larger frames are shrunk to this shorter side before (default: %(default)s)",
    )
    flow.add_argument("--num_workers", type=int, default=None, metavar="N", help="processes (default: one a core)")
    flow.add_argument("--json", action="store_true", help="the report as JSON")

    bench = _command(subparsers, "bench", "Measure; prints JSON lines.", run=commands.measure)
    names = ["decode", "motion", "ops", "pipeline", "plot", "step"]
    bench.add_argument("name", choices=names, help="what to measure; plot: draw what ops printed")
    bench.add_argument("file", nargs="?", metavar="FILE.jsonl", help="plot: the lines of 'jaxvid bench ops'")
    bench.add_argument("--json", action="store_true", help="JSON lines, which is also what comes without it")
    bench.add_argument("--runs", type=int, default=5, metavar="N", help="counted runs (default: %(default)s)")
    bench.add_argument("--model", default="srtg_r3d_18", help="step: the network (default: %(default)s)")
    bench.add_argument(
        "--width",
        type=int,
        default=16,
        help="step: channels of a ResNet's stage 1; 64 is the paper's size of every network (default: %(default)s)",
    )
    bench.add_argument("--clip", default="16,64,64", metavar="T,H,W", help="step: the clip (default: %(default)s)")
    bench.add_argument("--batch_size", type=int, default=16, help="step: clips (default: %(default)s)")
    bench.add_argument(
        "--class_regularization", action="store_true", help="step: also the network with it, and what that adds"
    )

    bench.add_argument("--config", default="configs/motion.py", help="motion: the recipe (default: %(default)s)")
    bench.add_argument("--workdir", default="runs/bench-motion", help="motion: the runs (default: %(default)s)")
    bench.add_argument("--seeds", type=int, default=3, help="motion: seeds of each network (default: %(default)s)")
    bench.add_argument("--op", metavar="NAME", help="ops: one operator (default: all)")
    bench.add_argument("--quick", action="store_true", help="ops: small shapes, which show only that everything runs")
    bench.add_argument("--dtype", metavar="NAME", help="ops: default float32, and bfloat16 too where it is not a CPU")
    bench.add_argument("--plot", metavar="PNG", help="ops: also draw the fractions of the peak")
    bench.add_argument(
        "--output",
        default="ops.png",
        metavar="FILE",
        help="plot: the picture, or a table where the name ends in .md (default: %(default)s)",
    )

    doctor = _command(
        subparsers, "doctor", "Is this machine ready? One line per check, and how to mend it.", run=commands.diagnose
    )
    doctor.add_argument("--json", action="store_true", help="a JSON list")
    return parser


def _command(parent: Any, name: str, description: str, **defaults: Any) -> argparse.ArgumentParser:
    options = {
        "description": description,
        "epilog": _EXAMPLES[name],
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }
    if parent is None:
        return _Parser(prog="jaxvid", **options)
    parser = parent.add_parser(name.split()[-1], help=description, **options)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.set_defaults(parser=parser, **defaults)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="a config file, with its argument")
    parser.add_argument_group("config").add_argument(
        "--config.SECTION.FIELD", metavar="VALUE", dest="_", help="override one field, as often as you like"
    )
