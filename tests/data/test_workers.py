"""What decoding processes need. How they live and die is seen in test_pipeline.py."""

import pickle

import pytest

from jaxvid.data import workers


class _UnpicklableError(Exception):
    def __init__(self, one, two):
        super().__init__(one)


def test_an_exception_comes_home_with_its_note():
    error = workers.portable(KeyError("key"), "while loading a.mp4")
    assert isinstance(error, KeyError)
    arrived = pickle.loads(pickle.dumps(error))
    assert arrived.args == ("key",)
    assert arrived.__notes__ == ["while loading a.mp4"]


def test_an_exception_that_cannot_travel_sends_its_text():
    error = workers.portable(_UnpicklableError("it broke", 2), "while loading a.mp4")
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is RuntimeError
    assert str(arrived) == "_UnpicklableError: it broke"
    assert arrived.__notes__ == ["while loading a.mp4"]


@pytest.mark.parametrize(("cores", "num_workers", "threads"), [(8, 0, 8), (8, 1, 8), (8, 3, 2), (2, 4, 1)])
def test_the_cores_are_shared_among_the_processes(monkeypatch, cores, num_workers, threads):
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert workers.num_threads(num_workers) == threads


def test_cores_are_counted_where_there_is_no_affinity(monkeypatch):
    monkeypatch.delattr(workers.os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 6)
    assert workers.num_threads(2) == 3


def test_a_dead_process_is_told_from_other_errors():
    text = "Worker process was terminated unexpectedly with exit code -7. Search the logs above."
    assert "exit code -7: " in str(workers.worker_died(RuntimeError(text)))
    assert workers.worker_died(RuntimeError("something else")) is None
