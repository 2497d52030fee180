"""The command line: ``jaxvid train | eval | models | data | bench | doctor``."""

from __future__ import annotations

import argparse
import difflib
import json
import logging
import os
import select
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import jaxvid

_EXAMPLES = {
    "": """examples:
  jaxvid doctor                                                     is this machine ready?
  jaxvid train --config=configs/motion.py --workdir=runs/motion     train; the same command goes on after a stop
  jaxvid eval --checkpoint=runs/motion                              evaluate what was trained
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
    "models": """examples:
  jaxvid models
  jaxvid models --json
  jaxvid models --markdown
""",
    "data": """examples:
  jaxvid data make motion --root=data/motion
  jaxvid data check --config=configs/folder.py --config.data.root=videos
  jaxvid data browse --config=configs/motion.py --output=clips.png
""",
    "data make": """examples:
  jaxvid data make motion --root=data/motion
  jaxvid data make motion --root=data/motion --tfds
""",
    "data check": """examples:
  jaxvid data check --config=configs/motion.py
  jaxvid data check --config=configs/folder.py --config.data.root=videos --json
""",
    "data browse": """examples:
  jaxvid data browse --config=configs/motion.py --output=clips.png
  jaxvid data browse --config=configs/motion.py --output=clips.png --rows=20 --seed=3
""",
    "bench": """examples:
  jaxvid bench decode
  jaxvid bench pipeline
  jaxvid bench step --model=srtg_r3d_18 --width=16 --clip=16,64,64 --batch_size=16
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


_READER_LEFT = 141  # 128 + SIGPIPE, as a shell reports any program that wrote to a closed pipe


class _Parser(argparse.ArgumentParser):
    """argparse whose errors are one sentence with the nearest valid name."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see '{self.prog} --help'.")


class UsageError(ValueError):
    """The command line itself is wrong."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status (0 done, 1 failed, 2 wrong usage, 141 nobody reads the output)."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options, overrides = _parse(arguments)
        status = options.run(options, overrides)
        sys.stdout.flush()  # here, so that a closed pipe is met below and not at the interpreter's exit
        return status
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return _READER_LEFT
        if _wants_traceback(arguments):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader has left (``jaxvid models | head -1``); it is silenced then."""
    try:
        descriptor = sys.stdout.fileno()
        poll = select.poll()
    except (OSError, ValueError, AttributeError):  # not a file, or a system without poll
        return False
    poll.register(descriptor, 0)  # an error or a hang-up is reported without being asked for
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    # What is still buffered goes nowhere, else the interpreter complains once more at its exit.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
    return True


def _wants_traceback(arguments: Sequence[str]) -> bool:
    """Whether ``--debug`` was given: errors then keep their traceback."""
    return "--debug" in arguments


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, dict[str, str]]:
    parser = _build_parser()
    options, rest = parser.parse_known_args(arguments)
    overrides: dict[str, str] = {}
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if not name.startswith("--config."):
            _unknown(parser, options, name)
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"{name} must have a value ({name}=VALUE).")
            value = rest.pop(0)
        overrides[name.removeprefix("--config.")] = value
    if overrides and not getattr(options, "takes_overrides", False):
        raise UsageError(
            f"--config.* may only be given to a command that reads a config, received {sorted(overrides)}."
        )
    return options, overrides


def _unknown(parser: argparse.ArgumentParser, options: argparse.Namespace, name: str) -> NoReturn:
    known = [*vars(options.parser)["_option_string_actions"], "--config.data.root"]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else f" See '{options.parser.prog} --help'."
    raise UsageError(f"{options.parser.prog} has no option {name}.{hint}")


def _build_parser() -> argparse.ArgumentParser:
    parser = _command(None, "", jaxvid.__doc__.splitlines()[0] if jaxvid.__doc__ else "")
    parser.add_argument("--version", action="version", version=f"jaxvid {jaxvid.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    train = _command(commands, "train", "Train, or go on training, one network.", run=_train, takes_overrides=True)
    _add_config(train)
    train.add_argument("--workdir", required=True, metavar="DIR", help="run folder; resumed when it holds checkpoints")

    evaluate = _command(commands, "eval", "Evaluate a checkpoint.", run=_eval, takes_overrides=True)
    evaluate.add_argument("--checkpoint", required=True, metavar="DIR", help="a run folder, or one step of it")
    evaluate.add_argument("--output", metavar="DIR", help="folder of the results (default: RUN/eval)")
    evaluate.add_argument("--best", action="store_true", help="the checkpoint with the best eval/top1, not the newest")

    models = _command(commands, "models", "List the networks: parameters, multiply-adds, paper's figures.", run=_models)
    form = models.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a JSON list")
    form.add_argument("--markdown", action="store_true", help="a Markdown table, as in the README")

    data = _command(commands, "data", "Make, check or look at videos.")
    tools = data.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)
    make = _command(tools, "data make", "Make an embedded data set.", run=_data_make)
    make.add_argument("name", choices=["motion"], help="which one")
    make.add_argument("--root", metavar="DIR", default="", help="where to (default: the cache folder)")
    make.add_argument("--tfds", action="store_true", help="also write it as a TFDS data set (ArrayRecord) to DIR/tfds")
    make.add_argument("--num_workers", type=int, default=None, metavar="N", help="encoding processes")
    check = _command(tools, "data check", "Decode every video and report.", run=_data_check, takes_overrides=True)
    _add_config(check)
    check.add_argument("--json", action="store_true", help="the report as JSON")
    check.add_argument("--num_workers", type=int, default=None, metavar="N", help="decoding processes")
    browse = _command(
        tools, "data browse", "Draw clips as the network sees them.", run=_data_browse, takes_overrides=True
    )
    _add_config(browse)
    browse.add_argument("--output", default="clips.png", metavar="PNG", help="the picture (default: %(default)s)")
    browse.add_argument("--rows", type=int, default=12, metavar="N", help="clips (default: %(default)s)")
    browse.add_argument("--seed", type=int, default=0, metavar="N", help="which clips (default: %(default)s)")

    bench = _command(commands, "bench", "Measure; prints JSON lines.", run=_bench)
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

    doctor = _command(commands, "doctor", "Is this machine ready? One line per check, and how to mend it.", run=_doctor)
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


def _train(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    from jaxvid import config as config_lib
    from jaxvid.progress import RichProgress

    config = config_lib.load(options.config, overrides)
    with RichProgress() as progress:
        if config.data.folds:
            return _train_folds(config, options.workdir, progress)
        from jaxvid.train.loop import train

        result = train(config, options.workdir, progress=progress)
    print(_table(result.metrics, title=f"{config.model.name}, width {config.model.width}"))
    print(f"run: {result.workdir}")
    if result.finished:
        print(f"next: jaxvid eval --checkpoint={result.workdir}")
    return 0


def _train_folds(config: Any, workdir: str, progress: Any) -> int:
    from jaxvid.train.folds import cross_validate

    result = cross_validate(config, workdir, progress=progress)
    if result.finished:
        print(_table(result.metrics, title=f"{config.model.name}, {len(result.per_fold)} folds"))
    print(f"run: {result.workdir}")
    return 0


def _eval(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    from jaxvid.progress import RichProgress
    from jaxvid.train.run import evaluate_run

    with RichProgress() as progress:
        done = evaluate_run(options.checkpoint, options.output, overrides, best=options.best, progress=progress)
    print(done.table)
    print(_table(done.metrics, title=f"{done.run.config.model.name}, step {done.run.step}"))
    print(f"results: {done.output}")
    return 0


def _table(metrics: dict[str, Any], *, title: str) -> str:
    rows = [(name, f"{value:.4f}" if isinstance(value, float) else str(value)) for name, value in metrics.items()]
    width = max([len(name) for name, _ in rows], default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {value:>10}" for name, value in rows)])


def _models(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    from jaxvid.models import cards

    if options.json:
        print(cards.to_json())
    elif options.markdown:
        print(cards.to_markdown())
    else:
        print(cards.to_text())
    return 0


def _data_make(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    from jaxvid.data.datasets import motion
    from jaxvid.progress import RichProgress

    with RichProgress() as progress:
        root = motion.make_motion(options.root, num_workers=options.num_workers, progress=progress.making())
        print(f"videos: {root}")
        if options.tfds:
            print(f"TFDS: {motion.make_tfds(root)}")
    return 0


def _data_check(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    from jaxvid import config as config_lib
    from jaxvid.data import check
    from jaxvid.progress import RichProgress
    from jaxvid.train import assemble

    config = config_lib.load(options.config, overrides)
    splits = dict.fromkeys((config.data.train_split, config.data.eval_split))
    datasets = [assemble.open_dataset(config, split) for split in splits]
    with RichProgress() as progress:
        report = check.check_dataset(datasets, num_workers=options.num_workers, progress=progress.checking())
    print(json.dumps(report.to_json(), indent=2) if options.json else report.to_text())
    return 1 if report.broken else 0


def _data_browse(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    from jaxvid import config as config_lib
    from jaxvid.data import browse
    from jaxvid.train import assemble

    config = config_lib.load(options.config, overrides)
    dataset = assemble.open_dataset(config, config.data.train_split)
    clips = assemble.train_clips(config, dataset.class_names)
    browse.contact_sheet(dataset, clips, Path(options.output), rows=options.rows, seed=options.seed)
    print(f"picture: {options.output}")
    return 0


def _bench(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    from jaxvid import benchmarks

    if (options.name == "plot") != (options.file is not None):
        raise UsageError(
            f"FILE.jsonl belongs to 'jaxvid bench plot' and to no other, received {options.name} and {options.file}."
        )
    if options.name == "plot":
        from jaxvid.benchmarks import plot, table

        lines = plot.read_lines(options.file)
        if options.output.endswith(".md"):
            Path(options.output).write_text(table.format_ops(lines), encoding="utf-8")
        else:
            plot.draw_ops(lines).savefig(options.output, dpi=100)
        print(f"written: {options.output}")
        return 0
    if options.plot and options.name != "ops":
        raise UsageError(f"--plot belongs to 'jaxvid bench ops', received it with {options.name}.")
    lines = []
    for line in benchmarks.BENCHMARKS[options.name](options):
        print(json.dumps(line), flush=True)
        lines.append(line)
    if options.plot:
        from jaxvid.benchmarks import plot

        plot.draw_ops(lines).savefig(options.plot, dpi=100)
    return 0


def _doctor(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    import dataclasses

    from jaxvid import doctor

    checks = doctor.diagnose()
    if options.json:
        print(json.dumps([dataclasses.asdict(check) for check in checks], indent=2))
    else:
        for check in checks:
            mend = f"\n      mend: {check.fix}" if check.fix and check.status != "PASS" else ""
            print(f"{check.status:<4}  {check.name}: {check.detail}{mend}")
    return 1 if any(check.status == "FAIL" for check in checks) else 0


if __name__ == "__main__":
    sys.exit(main())
