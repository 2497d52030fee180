"""What each command does: every function takes the parsed options and returns the exit status."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jaxvid.cli.usage import UsageError


def train(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Trains one network, or one per fold."""
    from jaxvid import config as config_lib
    from jaxvid.progress import RichProgress

    config = config_lib.load(options.config, overrides)
    with RichProgress() as progress:
        if config.data.folds:
            return _train_folds(config, options.workdir, progress)
        from jaxvid.train.stages import train

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


def evaluate(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Evaluates a checkpoint."""
    from jaxvid.progress import RichProgress
    from jaxvid.train.run import evaluate_run

    with RichProgress() as progress:
        done = evaluate_run(options.checkpoint, options.output, overrides, best=options.best, progress=progress)
    tables = (done.table, done.fusion_table, done.guess_table, _table(done.metrics, title=done.run.title))
    print("\n\n".join(filter(None, tables)))
    print(f"results: {done.output}")
    return 0


def compare(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Says whether one run is better than another on the clips that both were evaluated on."""
    from jaxvid import evaluation
    from jaxvid.files import make_output_folder

    found = evaluation.compare_runs(options.run_a, options.run_b)
    folder = None if options.output is None else make_output_folder("--output", options.output)
    if folder is not None:  # before it is printed, which may end in a pipe that nobody reads
        evaluation.write_comparison(folder, found)
    print(evaluation.comparison_json(found) if options.json else evaluation.format_comparison(found))
    if folder is not None and not options.json:
        print(f"results: {folder}")
    return 0


def fuse(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Says what several evaluated runs are worth together."""
    from jaxvid import evaluation
    from jaxvid.files import make_output_folder

    if len(options.words) < 2:
        raise UsageError(f"jaxvid fuse must be given at least 2 runs, received {options.words[0]!r} only.")
    # An option that was not given is the function's own default.
    chosen = {name: value for name in ("num_folds", "step", "seed") if (value := getattr(options, name)) is not None}
    if options.weights is not None:
        if chosen:
            raise UsageError(f"--{next(iter(chosen))} belongs to the search of weights, received it with --weights.")
        chosen["weights"] = _numbers("--weights", options.weights)
    found = evaluation.fuse_runs(options.words, **chosen)
    folder = None if options.output is None else make_output_folder("--output", options.output)
    if folder is not None:
        evaluation.write_fusion(folder, found)
    print(evaluation.fusion_json(found) if options.json else evaluation.format_fusion(found))
    if folder is not None and not options.json:
        print(f"results: {folder}")
    return 0


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{option} must be numbers, as 0.6,0.4, received {option}={text}.") from error


def predict(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Says what is seen in videos; status 1 where one could not be decoded."""
    from jaxvid.inference import annotate, find_videos, load_recognizer
    from jaxvid.progress import RichProgress

    checkpoint, words = (options.checkpoint, options.words) if options.checkpoint else _first(options.words)
    if options.top < 1:
        raise UsageError(f"--top must be >= 1, received --top={options.top}.")
    videos = find_videos(words)
    folders = _result_folders(options)
    recognizer = load_recognizer(checkpoint, overrides, best=options.best)
    copies = annotate.Copies(folders["annotate"], videos) if "annotate" in folders else None
    problems: list[str] = []
    with RichProgress(_where_bars_go()) as progress, ExitStack() as files:
        tellers = _tellers(options, folders.get("output"), progress, files)
        for found in recognizer.predict(videos, progress=progress.counting("predicting")):
            for tell in tellers:
                tell(found)
            problem = found.error or (copies.write(found) if copies else "")
            problems += [problem] * bool(problem)
    if problems:
        print(f"{len(problems)} of {len(videos)} videos could not be decoded:", *problems, sep="\n  ", file=sys.stderr)
    return 1 if problems else 0


def explain(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Draws why a network says what it says; status 1 where a video could not be decoded."""
    from jaxvid.inference.explain import explain_run
    from jaxvid.progress import RichProgress

    checkpoint, *videos = options.words
    given = {name: getattr(options, name) for name in ("num_videos", "classes", "top", "against", "best")}
    with RichProgress() as progress:
        done = explain_run(
            checkpoint, options.method, options.output, videos=videos, overrides=overrides, progress=progress, **given
        )
    print(*done.lines, sep="\n")
    print(f"results: {done.output} ({', '.join(path.name for path in done.files[-3:])})")
    if done.problems:
        print(f"{len(done.problems)} videos could not be decoded:", *done.problems, sep="\n  ", file=sys.stderr)
    return 1 if done.problems else 0


def _first(words: list[str]) -> tuple[str, list[str]]:
    if len(words) < 2:
        raise UsageError(f"jaxvid predict must be given a run and at least 1 video, received {words[0]!r} only.")
    return words[0], words[1:]


def _result_folders(options: argparse.Namespace) -> dict[str, Path]:
    """The folders that were asked for, made before anything else is done."""
    from jaxvid.files import make_output_folder

    if options.csv is not None:
        if Path(options.csv).is_dir():
            raise UsageError(f"--csv must be a file, received {options.csv!r}, which is a folder.")
        make_output_folder("the place of --csv", Path(options.csv).parent)
    given = {name: getattr(options, name) for name in ("output", "annotate")}
    return {name: make_output_folder(f"--{name}", folder) for name, folder in given.items() if folder is not None}


def _where_bars_go() -> Any:
    """Standard error, where results are piped away; ``None``, which is standard output, where a person reads them."""
    from rich.console import Console

    return None if sys.stdout.isatty() else Console(stderr=True)


def _tellers(options: argparse.Namespace, folder: Path | None, progress: Any, files: ExitStack) -> list[Callable]:
    """What prints a video's result, and what writes it where it was asked for."""
    from jaxvid.inference import output

    stdout = sys.stdout  # while bars are drawn on standard error, sys.stdout leads there too
    show = progress.message if stdout.isatty() else functools.partial(print, file=stdout, flush=True)
    block = "█" if (stdout.encoding or "").lower().startswith("utf") else "#"
    form = output.to_json if options.json else functools.partial(output.to_text, block=block)
    tellers: list[Callable] = [lambda found: show(form(found, options.top))]
    if options.csv is not None:
        tellers.append(files.enter_context(output.csv_table(options.csv, options.top)))
    if folder is not None:
        tellers.append(files.enter_context(output.result_folder(folder, options.top)))
    return tellers


def _table(metrics: dict[str, Any], *, title: str) -> str:
    rows = [(name, f"{value:.4f}" if isinstance(value, float) else str(value)) for name, value in metrics.items()]
    width = max([len(name) for name, _ in rows], default=0)
    return "\n".join([title, *(f"  {name:<{width}}  {value:>10}" for name, value in rows)])


def convert(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Makes a run folder of foreign weights."""
    from jaxvid.train.imported import import_weights

    done = import_weights(
        options.weights,
        options.model,
        options.output,
        num_classes=options.num_classes,
        class_names=options.class_names,
        inflate=options.inflate,
        golden=options.golden,
    )
    told, data = done.provenance, done.config.data
    print(f"weights: {told['weights']}, by the names of {told['names_of']}, sha256 {told['sha256'][:16]}...")
    print(f"network: {options.model}, {len(done.class_names)} classes ({done.class_names[0]}, ...)")
    print(
        f"input:   {data.num_frames} frames, every {data.frame_stride}., of {data.crop_size}x{data.crop_size} pixels, "
        f"{data.color} ({told['preprocessing']})"
    )
    for what in ("filled", "ignored"):
        if told[what]:
            print(f"{what}:  {len(told[what])} arrays ({', '.join(told[what][:3])}{', ...' if told[what][3:] else ''})")
    if "golden" in told:
        print("golden:  largest difference {max_abs_difference:.2e}, std {std_of_logits:.2e}".format(**told["golden"]))
    print(f"run: {done.run}")
    print(f"next: jaxvid eval --checkpoint={done.run} --config.data.root=VIDEOS")
    return 0


def list_models(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Prints the networks, or what training them takes."""
    if options.cost:
        return _print_costs(options)
    given = [
        f"--{name}"
        for name in ("batch_size", "dtype", "conv", "remat", "unoptimized", "resume")
        if getattr(options, name)
    ]
    if given:
        raise UsageError(f"{given[0]} belongs to 'jaxvid models --cost', received it without --cost.")
    from jaxvid.models import cards

    names = options.names or None
    if options.json:
        print(cards.to_json(names))
    elif options.markdown:
        print(cards.to_markdown(names))
    else:
        print(cards.to_text(names))
    return 0


def _print_costs(options: argparse.Namespace) -> int:
    from jaxvid.benchmarks import cost_table
    from jaxvid.progress import RichProgress

    # An option that was not given is the function's own default.
    chosen = {name: value for name in ("batch_size", "dtype", "conv") if (value := getattr(options, name)) is not None}
    with RichProgress() as progress:
        lines = cost_table.cost_lines(
            options.names or None,
            resume=options.resume,
            progress=progress.counting("compiling"),
            remat=options.remat,
            optimize=not options.unoptimized,
            **chosen,
        )
        if options.json:
            rows = map(json.dumps, lines)
        else:
            rows = cost_table.to_markdown(lines) if options.markdown else cost_table.to_text(lines)
        for row in rows:
            print(row, flush=True)
    return 0


def measure(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Runs a benchmark, or draws what one printed."""
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


def diagnose(options: argparse.Namespace, overrides: dict[str, str]) -> int:
    """Looks at this machine; status 1 where something fails."""
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
