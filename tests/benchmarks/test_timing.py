"""Medians and quartiles of what was measured, and nothing of the warm-up."""

import subprocess
import sys
import time

import pytest

from jaxvid.benchmarks import timing
from jaxvid.benchmarks.timing import Timing, describe_machine, measure, quartiles


def test_measure_calls_the_warm_up_first_and_counts_the_rest(monkeypatch):
    now = [0.0]
    durations = iter([100.0, 50.0, 1.0, 2.0, 4.0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "process_time", lambda: now[0] * 2)

    def run():
        now[0] += next(durations)

    found = measure(run, runs=3, warmup=2)
    assert found == Timing((1.0, 2.0, 4.0), (2.0, 4.0, 8.0), warmup=2)
    assert (found.median, found.cpu_median) == (2.0, 4.0)
    assert found.summary() == {
        "seconds_median": 2.0, "seconds_quartiles": [1.5, 3.0], "seconds_min": 1.0, "seconds_max": 4.0,
        "runs": 3, "warmup": 2,
    }  # fmt: skip


def test_measure_without_warm_up():
    calls = []
    assert measure(lambda: calls.append(1), runs=1, warmup=0).warmup == 0
    assert len(calls) == 1


@pytest.mark.parametrize("numbers", [{"runs": 0}, {"runs": 1, "warmup": -1}])
def test_measure_refuses(numbers):
    with pytest.raises(ValueError, match="runs must be >= 1 and warmup >= 0, received"):
        measure(lambda: None, **numbers)


def test_quartiles():
    assert quartiles([3.0, 1.0]) == (1.5, 2.5)
    assert quartiles([5.0]) == (5.0, 5.0)
    assert quartiles([4.0, 1.0, 3.0, 2.0]) == (1.75, 3.25)


def test_the_machine_is_described_with_its_devices():
    import jax

    found = describe_machine()
    assert found["versions"]["jax"] == jax.__version__
    assert (found["device"], found["num_devices"]) == ("cpu", 8)
    assert found["cores"] > 0
    assert found["cpu"]


def test_describing_the_machine_starts_no_device():
    program = (
        "import sys; from jaxvid.benchmarks.timing import describe_machine; found = describe_machine(); "
        "assert 'device' not in found and 'jax' not in sys.modules, found"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_nameless_processor_is_called_by_its_architecture(monkeypatch):
    monkeypatch.setattr(timing.machine, "cpu_name", lambda: "")
    assert describe_machine()["cpu"]
