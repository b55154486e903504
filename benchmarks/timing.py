"""Times of several runs by turns, and their medians, spread and ratios."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Times = dict[str, list[float]]
OURS = "gpu_nn"
EVERYDAY = "gpu_nn, everyday loss"

# Threads of OpenBLAS and OpenMP keep a core busy for up to 25 ms after their work, waiting for more: so long the next
# run, of another library, waits.
_REST = 0.03


@dataclass(frozen=True)
class OwnClock:
    """A run that returns the seconds that count: what it does besides, and others do not, is left out."""

    run: Callable[[], float]

    def __call__(self) -> float:
        return self.run()


def seconds_of(run: Callable[[], object], repeats: int = 1) -> float:
    """Mean seconds of so many calls."""
    if isinstance(run, OwnClock):
        return sum(run() for _ in range(repeats)) / repeats
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - began) / repeats


def interleaved(runs: Mapping[str, Callable[[], object]], rounds: int, repeats: int = 1, rest: float = _REST) -> Times:
    """Seconds of each run in each round: every round calls all of them, `repeats` times each, one after the other.

    One more round goes before them, to warm up; who begins changes from round to round, for a run may leave the caches
    and the threads in a state that costs the next one time. rest: seconds between two runs.
    """
    seconds: Times = {name: [] for name in runs}
    names = list(runs)
    for turn in range(rounds + 1):
        for name in names:
            if rest:
                time.sleep(rest)
            took = seconds_of(runs[name], repeats)
            if turn:
                seconds[name].append(took)
        names = names[1:] + names[:1]
    return seconds


def repeats_for(runs: Mapping[str, Callable[[], object]], seconds: float) -> int:
    """How often to call each run in a round, so that the quickest of them takes about so long."""
    quickest = np.inf
    for run in runs.values():
        run()
        quickest = min(quickest, seconds_of(run))
    return max(1, round(seconds / quickest))


def spreads(seconds: Times, divided_by: int = 1) -> dict[str, dict[str, float]]:
    """Microseconds of each run: median, 10th and 90th percentile."""
    return {
        name: dict(
            zip(("low", "median", "high"), (np.percentile(s, (10, 50, 90)) * 1e6 / divided_by).tolist(), strict=True)
        )
        for name, s in seconds.items()
    }


def ratios(seconds: Times, ours: str = OURS) -> dict[str, float]:
    """How many times as long as ours each other run took: the median over the rounds."""
    return {
        name: float(np.median(np.array(s) / np.array(seconds[ours]))) for name, s in seconds.items() if name != ours
    }


def cell(spread: Mapping[str, Any] | None) -> str:
    """Median (10th–90th percentile), three digits each."""
    if spread is None:
        return "absent"
    return f"{_short(spread['median'])} ({_short(spread['low'])}–{_short(spread['high'])})"


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"
