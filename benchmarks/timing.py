"""Times of several runs, taken by turns; their medians, spread and ratios, as numbers and as table cells."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Run = Callable[[], Any]
Times = dict[str, list[float]]
# Names of runs, which the result files keep: the full cost, and the standard cross entropy (complement_weight=0).
OURS, STANDARD = "gpu_nn", "gpu_nn, everyday loss"

# Threads of OpenBLAS and OpenMP spin for up to 25 ms after their work, which would slow the next run.
_REST = 0.03


@dataclass(frozen=True)
class OwnClock:
    """A run that returns the seconds to count, so that work which other runs do not do is left out."""

    run: Callable[[], float]

    def __call__(self) -> float:
        return self.run()


def seconds_of(run: Run, repeats: int = 1) -> float:
    """Mean seconds of `repeats` calls."""
    if isinstance(run, OwnClock):
        return sum(run() for _ in range(repeats)) / repeats
    began = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - began) / repeats


def interleaved(runs: Mapping[str, Run], rounds: int, repeats: int = 1, rest: float = _REST) -> Times:
    """Seconds of each run in each round: every round calls all of them one after the other, `repeats` times each.

    A round before the first warms up. The order rotates from round to round, since a run may leave caches and threads
    in a state that slows the next one. rest: seconds between two runs.
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


def by_turns(
    runs: Mapping[str, Run], rounds: int, seconds: float, quick: bool, of: Iterable[str] = (OURS,)
) -> tuple[Times, int]:
    """`interleaved` with so many repeats that the fastest of the runs named in `of` takes about
    `seconds` a round; and the repeats. quick: one call of each."""
    if quick:
        return interleaved(runs, rounds=1), 1
    fastest = np.inf
    for name in of:
        runs[name]()
        fastest = min(fastest, seconds_of(runs[name]))
    repeats = max(1, round(seconds / fastest))
    return interleaved(runs, rounds, repeats), repeats


def spread(seconds: list[float], factor: float = 1e6) -> dict[str, float]:
    """Median, 10th and 90th percentile, times `factor`: microseconds."""
    return dict(zip(("low", "median", "high"), (np.percentile(seconds, (10, 50, 90)) * factor).tolist(), strict=True))


def spreads(seconds: Times, divided_by: int = 1) -> dict[str, dict[str, float]]:
    """Microseconds of each run."""
    return {name: spread(s, 1e6 / divided_by) for name, s in seconds.items()}


def ratios(seconds: Times, ours: str = OURS) -> dict[str, float]:
    """How many times as long as ours each other run took: the median over the rounds."""
    return {
        name: float(np.median(np.array(s) / np.array(seconds[ours]))) for name, s in seconds.items() if name != ours
    }


def figures(seconds: Times, floor: str, divided_by: int = 1) -> dict[str, Any]:
    """What a result keeps of our run, of the baselines and of the floor."""
    found = ratios(seconds)
    return {"times_as_fast": found, "share_of_floor": found[floor], "microseconds": spreads(seconds, divided_by)}


def cell(spread: Mapping[str, Any] | None) -> str:
    """Median (10th–90th percentile), three digits each."""
    if spread is None:
        return "absent"
    return f"{short(spread['median'])} ({short(spread['low'])}–{short(spread['high'])})"


def compared(row: Mapping[str, Any], name: str, ratios: str = "times_as_fast") -> str:
    """The cell of a run of `row`, and how many times as long as ours it took."""
    ratio = row[ratios].get(name)
    return cell(row["microseconds"].get(name)) + ("" if ratio is None else f", {ratio:.2f} ×")


def short(number: float) -> str:
    """Three digits, or all before the decimal point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def percent(fraction: float) -> str:
    return f"{round(100 * fraction)} %"


def label(name: str) -> str:
    """What a table calls a run of this name."""
    return re.sub("everyday( loss| cost)?", "standard cross entropy", name)
