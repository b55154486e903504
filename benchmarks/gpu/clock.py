"""Seconds of single launches on a GPU, by turns with a copy that moves as many bytes."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.timing import OwnClock, Times, interleaved, ratios, spreads
from gpu_nn.device import Array, Device

COPY = "copy"
LAUNCHES = 21

# Bytes of each write that keeps the device busy while the host queues the timed launch: at least 0.1 ms at 5 TB/s, and
# more than an L2 cache holds.
AHEAD_BYTES = 1 << 29
MOST_WRITES = 32


class Clock:
    """Seconds of one launch: CUDA events on a GPU, the host's clock where the kernels are emulated.

    On a GPU the device first writes other memory until the launch and both events are queued, so that the host's time
    does not count.
    """

    def __init__(self, device: Device, emulated: bool):
        self.device, self.emulated = device, emulated
        self._cuda = device.xp.cuda
        self._ahead = device.xp.empty(0 if emulated else AHEAD_BYTES, np.uint8)

    def times(self, runs: Mapping[str, Callable[[], object]]) -> Times:
        """LAUNCHES of each run, by turns, after three rounds that compile and warm up."""
        if self.emulated:
            return interleaved(runs, rounds=1, rest=0.0)
        for _ in range(2):
            for run in runs.values():
                run()
        timed = {name: OwnClock(_Queued(self._cuda, self._ahead, run)) for name, run in runs.items()}
        return interleaved(timed, rounds=LAUNCHES, rest=0.0)

    def beside_a_copy(self, moved: int, runs: Mapping[str, Callable[[], object]]) -> dict[str, Any]:
        """Times of `runs`, of which ours moves `moved` bytes, and of a copy that moves as many."""
        seconds = self.times({**runs, COPY: self._copy(moved)})
        found = ratios(seconds)
        return {"bytes": moved, "microseconds": spreads(seconds), "times_as_fast": found, "share_of_copy": found[COPY]}

    def copy_bandwidth(self, size: int) -> float:
        """Bytes read and written a second by a copy of `size` bytes within the device's memory."""
        return 2 * size / float(np.median(self.times({COPY: self._copy(2 * size)})[COPY]))

    def _copy(self, moved: int) -> Callable[[], object]:
        xp = self.device.xp
        source = xp.zeros(max(1, moved // 8), np.float32)
        target = xp.empty_like(source)
        return lambda: xp.copyto(target, source)


class _Queued:
    """Seconds that the device takes for `run`, all of which the host has queued before the device starts it.

    The host's time for queueing everything is compared with the device's time for the writes ahead of the run. If the
    host was faster, the device never waited for it. Otherwise the run is timed again after twice as many writes, and
    later runs too. A run that waits for the device itself, or that takes the host longer than MOST_WRITES writes, is
    timed with the host's share.
    """

    def __init__(self, cuda: Any, ahead: Array, run: Callable[[], object]):
        self._cuda, self._ahead, self._run, self._writes = cuda, ahead, run, 1

    def __call__(self) -> float:
        first, begin, end = (self._cuda.Event() for _ in range(3))
        while True:
            began = time.perf_counter()
            first.record()
            for _ in range(self._writes):
                self._ahead.fill(0)
            begin.record()
            self._run()
            end.record()
            host = time.perf_counter() - began
            # The time between two events is known once the later one has passed.
            end.synchronize()
            if host <= self._seconds(first, begin) or self._writes >= MOST_WRITES:
                return self._seconds(begin, end)
            self._writes *= 2

    def _seconds(self, one: Any, other: Any) -> float:
        return float(self._cuda.get_elapsed_time(one, other)) / 1e3
