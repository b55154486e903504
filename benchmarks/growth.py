"""Growth of time and memory on the CPU with rows and classes of a loss, and with width, depth and batch of a step.

Shapes: SERIES. Each quantity is fitted as size ** exponent by a straight line through the logarithms of the medians.
Time is that of a call; memory is NumPy's peak allocation, parameters and Adam's moments included.
"""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.results import table
from benchmarks.timing import OURS, Run, by_turns
from gpu_nn import Adam, Network
from gpu_nn import functional as F

ROUNDS = 7


def loss_run(n: int, m: int) -> Run:
    random = np.random.default_rng(0)
    z = random.standard_normal((n, m), dtype=np.float32)
    y = random.integers(0, m, n)
    return lambda: F.softmax_cross_entropy_with_grad(z, y)


def step_run(widths: list[int], batch: int) -> Run:
    random = np.random.default_rng(0)
    net, optimizer = Network(widths, device="cpu"), Adam(1e-3)
    x = random.random((batch, widths[0]), dtype=np.float32)
    y = random.integers(0, widths[-1], batch)

    def step() -> None:
        net.loss_and_grad(x, y)
        optimizer.step(net)

    return step


# What grows, in which operation, over which sizes, and what is timed at one of them.
SERIES: dict[str, tuple[str, tuple[int, ...], Callable[[int], Run]]] = {
    "n": ("loss, m = 1000", (64, 256, 1024, 4096, 16384), lambda n: loss_run(n, 1000)),
    "m": ("loss, n = 256", (64, 256, 1024, 4096, 16384), lambda m: loss_run(256, m)),
    "width": ("step, 2 hidden layers, batch 128", (128, 256, 512, 1024, 2048), lambda w: step_run([w] * 3 + [10], 128)),
    "depth": ("step, width 256, batch 128", (1, 2, 4, 8, 16), lambda depth: step_run([256] * (depth + 1) + [10], 128)),
    "batch": ("step, 784-256-128-10", (32, 128, 512, 2048), lambda batch: step_run([784, 256, 128, 10], batch)),
}


def peak_bytes(made: Callable[[int], Run], size: int) -> int:
    tracemalloc.start()
    try:
        made(size)()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def exponent(sizes: list[int], values: list[float]) -> float:
    """The slope of log value against log size."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def measured(series: str, quick: bool) -> dict[str, Any]:
    operation, found, made = SERIES[series]
    sizes = [2, 4] if quick else list(found)
    medians = []
    for run in [made(size) for size in sizes]:
        seconds, _ = by_turns({OURS: run}, ROUNDS, 0.03, quick)
        medians.append(float(np.median(seconds[OURS])))
    peaks = [peak_bytes(made, size) for size in sizes]
    return {
        "series": series,
        "operation": operation,
        "sizes": sizes,
        "microseconds": [1e6 * s for s in medians],
        "bytes": peaks,
        "time_exponent": exponent(sizes, medians),
        "memory_exponent": exponent(sizes, [float(number) for number in peaks]),
    }


def measure(quick: bool) -> dict[str, Any]:
    return {"series": [measured(series, quick) for series in SERIES]}


def markdown(result: dict[str, Any]) -> str:
    lines = []
    for row in result["series"]:
        sizes, times, peaks = row["sizes"], row["microseconds"], row["bytes"]
        what = f"{row['series']}, {sizes[0]:,} to {sizes[-1]:,} ({row['operation']})"
        time = [f"{times[0]:,.0f} to {times[-1]:,.0f}", f"{row['time_exponent']:.2f}"]
        memory = [f"{peaks[0] / 1e6:.2f} to {peaks[-1] / 1e6:,.1f}", f"{row['memory_exponent']:.2f}"]
        lines.append([what, *time, *memory])
    return table(["what grows", "µs", "exponent", "MB", "exponent"], lines)
