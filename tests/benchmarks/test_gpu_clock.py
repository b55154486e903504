"""The clock of the GPU's benchmark times what the device does, not the host."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.gpu import clock
from benchmarks.gpu.clock import Clock
from tests.cuda_emulator.device import emulated_device


class Machine:
    """A host and the GPU that it queues work for, such as an array's `fill`. Times are seconds of one clock."""

    def __init__(self, fill=2e-4):
        self.now = self.free = 0.0
        self.fills, self._fill = 0, fill
        self.cuda = SimpleNamespace(Event=lambda: MachineEvent(self), get_elapsed_time=lambda a, b: 1e3 * (b.at - a.at))

    def run(self, host, gpu):
        self.now += host
        self.free = max(self.free, self.now) + gpu

    def empty(self, *_):
        return self

    def fill(self, _):
        self.fills += 1
        self.run(5e-6, self._fill)


class MachineEvent:
    def __init__(self, machine):
        self.machine, self.at = machine, None

    def record(self):
        self.machine.run(1e-6, 0)
        self.at = self.machine.free

    def synchronize(self):
        self.machine.now = max(self.machine.now, self.at)


@pytest.fixture
def machine(monkeypatch):
    found = Machine()
    monkeypatch.setattr(clock.time, "perf_counter", lambda: found.now)
    return found


@pytest.mark.parametrize(("host", "fills"), [(5e-6, 1), (1e-4, 1), (3e-4, 2), (5e-3, 32)])
def test_a_launch_takes_what_the_device_takes_however_long_the_host_does(machine, host, fills):
    """Here a kernel of 3 µs; where queueing takes the host longer than one write ahead, more writes are made."""
    seconds = Clock(SimpleNamespace(xp=machine), emulated=False).times({"short": lambda: machine.run(host, 3e-6)})[
        "short"
    ]
    np.testing.assert_allclose(seconds, 3e-6, rtol=1e-6)
    assert len(seconds) == clock.LAUNCHES
    rounds = clock.LAUNCHES + 1
    assert machine.fills == rounds * fills + fills - 1  # the writes that were too few, once


def test_a_run_that_waits_for_the_device_is_timed_with_the_host_in_it(machine):
    def waits():
        machine.now = machine.free
        machine.run(5e-6, 3e-6)

    seconds = Clock(SimpleNamespace(xp=machine), emulated=False).times({"waits": waits})["waits"]
    assert min(seconds) > 5e-6
    assert machine.fills < clock.MOST_WRITES * (clock.LAUNCHES + 3)


def test_launches_are_timed_by_events_and_by_turns(monkeypatch):
    monkeypatch.setattr(clock, "AHEAD_BYTES", 1 << 10)
    monkeypatch.setattr(clock, "MOST_WRITES", 1)  # the emulated device takes as long as the host
    called = []
    runs = {"gpu_nn": lambda: called.append("a"), "baseline": lambda: called.append("b")}
    with emulated_device(nvmath=True) as device:
        found = Clock(device, emulated=False).beside_a_copy(1 << 12, runs)
    assert "".join(called) == "abab" + "".join(["ab", "ba", "ab"][turn % 3] for turn in range(clock.LAUNCHES + 1))
    assert set(found["microseconds"]) == {"gpu_nn", "baseline", "copy"}
    assert set(found["times_as_fast"]) == {"baseline", "copy"}
    assert found["bytes"] == 1 << 12
