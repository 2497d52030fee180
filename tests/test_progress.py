import io
import logging
import re
import subprocess
import sys

import pytest
from rich.console import Console

from jaxvid import progress as progress_lib
from jaxvid.progress import RichProgress, time_left


def terminal(width=160):
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, legacy_windows=False)


def shown(console):
    """What was drawn, without control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())


def run_two_epochs(progress):
    progress.message("Resuming after step 0 of 4 [not markup] :smile:")
    progress.start(step=0, total_steps=4)
    for step in range(1, 5):
        progress.step(
            step, {"epoch": step / 2, "loss": 4.0 / step, "clips_per_second": 10.0, "data_wait_fraction": 0.25}
        )
        if step % 2 == 0:
            count = progress.evaluating(3)
            for done in (1, 3):
                count(done)
            progress.epoch(step, {"epoch": step / 2, "loss": 4.0 / step, "eval/top1": 0.5})


LINES = [
    "Resuming after step 0 of 4 [not markup] :smile:",
    "epoch   1.00 | step 2/4 | loss 2.0000 | eval top1 50.00%",
    "epoch   2.00 | step 4/4 | loss 1.0000 | eval top1 50.00%",
]


def test_in_a_file_there_is_one_line_for_each_epoch_and_nothing_else():
    console = Console(file=io.StringIO(), width=20)
    with RichProgress(console) as progress:
        run_two_epochs(progress)
        progress.making()(1, 2)
        progress.checking()(2, 2)
    assert console.file.getvalue() == "".join(f"{line}\n" for line in LINES)


def test_in_a_dumb_terminal_too(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    with RichProgress(console) as progress:
        run_two_epochs(progress)
    assert console.file.getvalue().splitlines() == LINES


def test_a_command_whose_output_is_a_pipe_prints_plain_text():
    code = (
        "from jaxvid.progress import RichProgress\n"
        "with RichProgress() as p:\n"
        "    p.start(step=0, total_steps=1); p.step(1, {'loss': 1.0}); p.checking()(1, 1)\n"
        "    p.epoch(1, {'loss': 1.0})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert done.stdout == b"step 1/1 | loss 1.0000\n"
    assert done.stderr == b""


def test_in_a_terminal_a_bar_shows_where_it_is_and_the_lines_stay(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress_lib.time, "monotonic", lambda: next(clock))
    console = terminal()
    with RichProgress(console) as progress:
        progress.start(step=10, total_steps=100)
        values = {"epoch": 0.5, "loss": 1.23456, "clips_per_second": 12.34, "data_wait_fraction": 0.071}
        progress.step(11, values)
        progress.step(13, values)
        progress._bars.refresh()
        progress.epoch(13, {"loss": 1.0})
        counter = progress.evaluating(40)
        counter(8)
        progress._bars.refresh()
        text = shown(console)
        # 2 steps took 10 s, so 87 take 435 s; the step before the first one known is not counted.
        assert "13/100 epoch 0.50 loss 1.2346 12.3 clips/s data wait 7% ETA 0:07:15" in text
        assert "step 13/100 | loss 1.0000\n" in text
        assert "evaluating" in text
        assert "8/40" in text
        assert [task.description for task in progress._bars.tasks] == ["training", "evaluating"]
        counter(40)
        assert [task.description for task in progress._bars.tasks] == ["training"]
        progress.epoch(100, {"loss": 0.5})
        assert progress._bars.tasks == []
        progress.start(step=0, total_steps=5)  # the next fold
        progress.start(step=0, total_steps=6)
        assert [task.total for task in progress._bars.tasks] == [6]
    assert console.file.getvalue().endswith("\x1b[?25h") or "\x1b[?25h" in console.file.getvalue()
    progress.close()


def test_loops_count_and_go(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    console = terminal()
    with RichProgress(console) as progress:
        for name in ("making", "checking"):
            count = getattr(progress, name)()
            count(2, 7)
            assert [(bar.description, bar.completed, bar.total) for bar in progress._bars.tasks] == [(name, 2, 7)]
            count(7, 7)
            assert progress._bars.tasks == []
        again = progress.counting("again")
        for total in (3, 5):  # the second round over the same data is a bar of its own
            again(1, total)
            assert [(bar.completed, bar.total) for bar in progress._bars.tasks] == [(1, total)]
            again(total, total)
            assert progress._bars.tasks == []


def test_an_exception_takes_all_bars_away_and_gives_the_cursor_back(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    console = terminal()
    progress = RichProgress(console)
    seen = []

    def fails_midway():
        with progress:
            progress.start(step=0, total_steps=3)
            progress.checking()(2, 7)
            seen.append(progress._bars)
            assert progress._bars.live.is_started
            assert [bar.description for bar in progress._bars.tasks] == ["training", "checking"]
            raise KeyError

    with pytest.raises(KeyError):
        fails_midway()
    (bars,) = seen
    assert progress._bars is None
    assert not bars.live.is_started
    drawn = console.file.getvalue()
    assert drawn.rindex("\x1b[?25h") > drawn.rindex("\x1b[?25l")  # shown again after it was hidden
    assert drawn.endswith("\x1b[2K")  # what was drawn last is erased


def test_log_lines_and_prints_go_above_the_bars_and_their_streams_come_back(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    handler = logging.StreamHandler()
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        console = terminal()
        with RichProgress(console) as progress:
            progress.start(step=0, total_steps=2)
            root.warning("video %s is bad", "a.mp4")
            print("printed")
            assert handler.stream is not stderr
        assert handler.stream is stderr
        assert sys.stderr is stderr
    finally:
        root.removeHandler(handler)
    assert "video a.mp4 is bad" in shown(console)
    assert "printed" in shown(console)
    assert stderr.getvalue() == ""


@pytest.mark.parametrize(
    ("since", "now", "total", "expected"),
    [
        ((5.0, 10), (15.0, 20), 30, "ETA 0:00:10"),
        ((0.0, 0), (7200.0, 1), 3, "ETA 4:00:00"),
        ((0.0, 0), (1.0, 4), 4, "ETA 0:00:00"),
        ((0.0, 3), (9.0, 3), 4, ""),
    ],
)
def test_time_left_is_the_mean_speed_times_what_is_left(since, now, total, expected):
    assert time_left(since, now, total) == expected
