"""Work in several processes: all items once, errors come home, a death costs one item."""

import math
import operator
import os
import subprocess
import sys
import time

import pytest

from jaxvid.data.parallel import map_unordered
from jaxvid.data.workers import WorkerDiedError


@pytest.mark.parametrize("num_workers", [0, 1, 2, 5])
def test_every_item_is_done_once(num_workers):
    found = list(map_unordered(math.factorial, range(12), num_workers=num_workers))
    assert sorted(found) == [(k, math.factorial(k)) for k in range(12)]
    if num_workers == 0:
        assert [index for index, _ in found] == list(range(12))


def test_nothing_to_do():
    assert list(map_unordered(len, [], num_workers=2)) == []


def test_processes_are_others_and_have_one_thread():
    (_, own), *_ = map_unordered(eval, ["__import__('os').getpid()"], num_workers=1)
    assert own != os.getpid()
    found = dict(map_unordered(os.getenv, ["OMP_NUM_THREADS"], num_workers=1))
    assert found == {0: "1"}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_errors_come_home(num_workers):
    with pytest.raises(ValueError, match="negative"):
        list(map_unordered(math.factorial, [1, 2, -1], num_workers=num_workers))


def test_what_cannot_be_pickled_is_an_error_and_no_hang():
    with pytest.raises(Exception, match="pickle"):
        list(map_unordered(len, [lambda: 0], num_workers=1))


def test_a_death_costs_one_item():
    found = dict(map_unordered(eval, ["1", "__import__('os')._exit(7)", "3"], num_workers=1))
    assert (found[0], found[2]) == (1, 3)
    assert isinstance(found[1], WorkerDiedError)
    assert "exit code 7" in str(found[1])


def test_an_interpreter_that_cannot_start_is_an_error_and_no_items_fault(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="/bin/false could not start a process that imports jaxvid"):
        list(map_unordered(len, ["a"], num_workers=1))


def test_what_is_printed_does_not_get_among_the_answers():
    found = dict(map_unordered(print, ["a", "b"], num_workers=1))
    assert found == {0: None, 1: None}


def test_closing_ends_the_processes():
    work = map_unordered(eval, ["__import__('os').getpid()", *["__import__('time').sleep(60)"] * 3], num_workers=1)
    _, pid = next(work)
    work.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the process is still there")


def test_a_script_without_a_guard_works(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import operator\nfrom jaxvid.data.parallel import map_unordered\n"
        "print(sorted(map_unordered(operator.neg, range(4), num_workers=2)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str([(k, operator.neg(k)) for k in range(4)]), done.stderr


def test_wrong_number_of_workers():
    with pytest.raises(ValueError, match="num_workers must be >= 0, received num_workers=-1"):
        map_unordered(len, [], num_workers=-1)
