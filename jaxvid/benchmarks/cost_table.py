"""``jaxvid models --cost``: the rows that are there already, the others compiled now, and the table of all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxvid import models
from jaxvid.benchmarks.plot import device_name
from jaxvid.benchmarks.step_cost import BATCH_SIZE, question, step_cost
from jaxvid.benchmarks.timing import describe_machine
from jaxvid.models import MODELS
from jaxvid.models.cards import NUM_CLASSES
from jaxvid.models.training_clips import TRAINING_CLIPS, TrainingClip

Line = dict[str, Any]


def cost_lines(
    names: Iterable[str] | None = None,
    *,
    batch_size: int = BATCH_SIZE,
    dtype: str = "float32",
    remat: bool = False,
    conv: str = "auto",
    optimize: bool = True,
    resume: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Line]:
    """The lines of :func:`jaxvid.benchmarks.step_cost.step_cost`, each as soon as it is there.

    Args:
      names: of :data:`jaxvid.models.MODELS`, all of them by default.
      batch_size: clips on the device.
      dtype: of the activations.
      remat: whether the backward pass computes activations again.
      conv: formulation of the convolutions.
      optimize: whether a CPU's machine code is optimised, which changes nothing but the time of compiling.
      resume: a file of such lines. What this machine has answered there, with the same versions of everything, is not
        compiled again; every new line is added to it at once, so that a stopped run goes on where it was.
      progress: takes how many are done, and of how many.

    Raises:
      ValueError: a name or an option is unknown, or the file holds something else.
    """
    names = list(MODELS if names is None else names)
    for name in names:  # a mistake is found before an hour of compiling
        models.build(name, NUM_CLASSES, dtype=dtype, remat=remat, conv=conv)
    answered = {_key(line): line for line in read_lines(resume)} if resume and Path(resume).exists() else {}
    here = describe_machine()
    for done, name in enumerate(names):
        if progress is not None:
            progress(done, len(names))
        asked = question(name, batch_size=batch_size, dtype=dtype, remat=remat, conv=conv, optimize=optimize)
        line = answered.get(_key(asked | here))
        if line is None:
            line = step_cost(name, batch_size=batch_size, dtype=dtype, remat=remat, conv=conv, optimize=optimize)
            if resume:
                with Path(resume).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
        yield line
    if progress is not None:
        progress(len(names), len(names))


def read_lines(path: str | Path) -> list[Line]:
    """The lines of a file that :func:`cost_lines` wrote.

    Raises:
      ValueError: a line is not one of them.
    """
    lines = []
    for number, text in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            line = None
        if not isinstance(line, dict) or line.get("benchmark") != "step_cost":
            raise ValueError(
                f"{path}:{number} must be a line of 'jaxvid models --cost --json', received {text[:60]!r}."
            )
        lines.append(line)
    return lines


def to_markdown(lines: Iterable[Line]) -> Iterator[str]:
    """The table as a document of its own (``docs/cost.md``), piece by piece; the machine is the first line's."""
    for k, line in enumerate(lines):
        if k == 0:
            introduction = _INTRODUCTION.format(command=COMMAND, others=_other_clips())
            yield f"# {_TITLE}\n\n{introduction}\n{_caption(line)}\n"
            yield _row(_COLUMNS)
            yield _row(["---", "---", *["---:"] * (len(_COLUMNS) - 2)])
        yield _row(_cells(line))


def to_text(lines: Iterable[Line]) -> Iterator[str]:
    """The table for a terminal, row by row."""
    widths = [max(len(name) for name in MODELS), 10, *(len(column) for column in _COLUMNS[2:])]
    for k, line in enumerate(lines):
        if k == 0:
            yield f"{_caption(line)}\n"
            yield _aligned(_COLUMNS, widths)
        yield _aligned(_cells(line), widths)


COMMAND = "jaxvid models --cost --conv=direct --unoptimized --resume=cost.jsonl --markdown > cost.md"
"""Compiles every network and writes the document; a second one goes on where a first one was stopped."""

_TITLE = "What training a network takes"

_INTRODUCTION = """\
Read from the compiled program of one training step, the whole one of `jaxvid train`. It is compiled from shapes:
nothing is allocated and nothing runs.

* *parameters*: the trainable ones, float32. *state*: they, one moment for each of them (SGD with momentum; AdamW keeps
  two) and the running statistics.
* *temporary*: all that lives inside of the step: activations kept for the backward pass, gradients, work space.
* *peak*: what must be allocated at once: state, batch and temporary (arguments + results - results in the place of the
  donated state + temporary). Data loading is not in it, nor what a GPU's libraries keep for themselves.
* *instructions* of the optimised program: how much there was to compile, without a clock.
* *trace*, *compile*: processor seconds over all threads, in Python before XLA and in XLA, no cache. They alone are
  read from a clock, so work beside them disturbs them, by a third and more. Here machine code is not optimised
  (`--unoptimized`); with it, the compilation of r3d_50 takes 1.7 times as long, that of srtg_r3d_50 2.3 times.

The memory is that of the program for this device and no other: on a CPU, `--remat` saves nothing, since XLA merges
there what was to be computed again with the first computation. The convolutions are direct ones, as they are on a GPU
and a TPU; without `--conv=direct`, those of a CPU are folded into 2-D ones (decision 12 of the [design](design.md)),
which takes work space of their own and up to four times as long to compile. On the device that matters, run the same
command:

```
{command}
```

The clip is the one that the network is usually trained on: that of its row in the [README](../README.md), but {others}.
"""

_COLUMNS = (
    "name",
    "clip",
    "parameters (MiB)",
    "state (MiB)",
    "temporary (GiB)",
    "peak (GiB)",
    "instructions",
    "trace (s)",
    "compile (s)",
)


def _cells(line: Mapping[str, Any]) -> list[str]:
    compiled = line["compile_cpu_seconds"]
    return [
        line["model"],
        "x".join(map(str, line["clip"])),
        f"{line['parameter_bytes'] / 2**20:.1f}",
        f"{line['state_bytes'] / 2**20:.1f}",
        f"{line['temp_bytes'] / 2**30:.2f}",
        f"{line['peak_bytes'] / 2**30:.2f}",
        f"{line['instructions']:,}",
        f"{line['trace_cpu_seconds']:.1f}",
        "cached" if compiled is None else f"{compiled:.1f}",
    ]


def _caption(line: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {line['versions'][name]}" for name in ("jaxvid", "jax", "jaxlib", "flax"))
    how = "recomputed in the backward pass" if line["remat"] else "kept for the backward pass"
    code = "" if line["optimize"] else "machine code unoptimised, "
    return (
        f"{line['batch_size']} clips, {line['dtype']}, activations {how}, convolutions: {line['conv']}, "
        f"{code}{line['num_classes']} classes, SGD with momentum, one device: {device_name(line)}, "
        f"{line['cores']:g} cores; {versions}."
    )


def _other_clips() -> str:
    """Which networks are trained on another clip than their card's, by whom."""
    names: dict[TrainingClip, list[str]] = {}
    for name, clip in TRAINING_CLIPS.items():
        names.setdefault(clip, []).append(f"`{name}`")
    return "; ".join(f"{', '.join(of)} {'x'.join(map(str, row.clip))} ({row.source})" for row, of in names.items())


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _aligned(cells: Iterable[str], widths: Iterable[int]) -> str:
    sides = [str.ljust, str.ljust, *[str.rjust] * (len(_COLUMNS) - 2)]
    return "  ".join(side(cell, width) for side, cell, width in zip(sides, cells, widths, strict=True)).rstrip()


def _key(line: Mapping[str, Any]) -> str:
    """What a line answers and where: equal for lines of which one is enough."""
    return json.dumps({name: line.get(name) for name in (*question("r3d_18"), *describe_machine())}, sort_keys=True)
