"""Runs on a GPU by turns, with a copy that moves as many bytes among them."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.timing import OwnClock, Times, interleaved, ratios, spreads
from gpu_nn.device import Device

COPY = "copy"
LAUNCHES = 21


class Clock:
    """Seconds of one launch: CUDA events on a GPU, the host's clock where the kernels are emulated."""

    def __init__(self, device: Device, emulated: bool):
        self.device, self.emulated = device, emulated
        self._cuda = device.xp.cuda

    def times(self, runs: Mapping[str, Callable[[], object]]) -> Times:
        """LAUNCHES of each run, one of each by turns, after three rounds to warm up and to compile."""
        for _ in range(0 if self.emulated else 2):
            for run in runs.values():
                run()
        timed = {name: OwnClock(partial(self._once, run)) for name, run in runs.items()}
        return interleaved(timed, rounds=1 if self.emulated else LAUNCHES, rest=0.0)

    def _once(self, run: Callable[[], object]) -> float:
        if self.emulated:
            began = time.perf_counter()
            run()
            return time.perf_counter() - began
        begin, end = self._cuda.Event(), self._cuda.Event()
        begin.record()
        run()
        end.record()
        end.synchronize()
        return float(self._cuda.get_elapsed_time(begin, end)) / 1e3

    def beside_a_copy(self, moved: int, runs: Mapping[str, Callable[[], object]]) -> dict[str, Any]:
        """What was measured of runs, ours among them, which moves so many bytes, and of a copy that does too."""
        seconds = self.times({**runs, COPY: self._copy(moved)})
        found = ratios(seconds)
        return {
            "bytes": moved,
            "microseconds": spreads(seconds),
            "times_as_fast": found,
            "share_of_copy": found[COPY],
        }

    def copy_bandwidth(self, size: int) -> float:
        """Bytes read and written a second by a copy of `size` bytes within the device's memory."""
        return 2 * size / float(np.median(self.times({COPY: self._copy(2 * size)})[COPY]))

    def _copy(self, moved: int) -> Callable[[], object]:
        xp = self.device.xp
        source = xp.zeros(max(1, moved // 8), np.float32)
        target = xp.empty_like(source)
        return lambda: xp.copyto(target, source)
