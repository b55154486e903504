"""Growth of time and memory on the CPU with rows and classes of a loss, and with width, depth and batch of a step.

Shapes: SERIES. Each quantity is fitted as size ** exponent by a straight line through the logarithms of the medians.
Time is that of a call; memory is NumPy's peak allocation, parameters and Adam's moments included.
"""

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.results import table
from benchmarks.timing import interleaved, repeats_for
from gpu_nn import Adam, Network
from gpu_nn import functional as F

# What grows, in which operation, over which sizes.
SERIES: dict[str, tuple[str, tuple[int, ...]]] = {
    "n": ("loss, m = 1000", (64, 256, 1024, 4096, 16384)),
    "m": ("loss, n = 256", (64, 256, 1024, 4096, 16384)),
    "width": ("step, 2 hidden layers, batch 128", (128, 256, 512, 1024, 2048)),
    "depth": ("step, width 256, batch 128", (1, 2, 4, 8, 16)),
    "batch": ("step, 784-256-128-10", (32, 128, 512, 2048)),
}
ROUNDS = 7

Run = Callable[[], object]


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


def made(series: str, size: int) -> Run:
    """What is timed at one size of a series."""
    if series == "n":
        return loss_run(size, 1000)
    if series == "m":
        return loss_run(256, size)
    if series == "width":
        return step_run([size, size, size, 10], 128)
    if series == "depth":
        return step_run([256, *[256] * size, 10], 128)
    return step_run([784, 256, 128, 10], size)


def peak_bytes(series: str, size: int) -> int:
    tracemalloc.start()
    try:
        made(series, size)()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def exponent(sizes: list[int], values: list[float]) -> float:
    """The slope of log value against log size."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def measured(series: str, quick: bool) -> dict[str, Any]:
    operation, found = SERIES[series]
    sizes = [2, 4] if quick else list(found)
    runs = {size: made(series, size) for size in sizes}
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for size, run in runs.items():
        repeats = 1 if quick else repeats_for({"": run}, 0.03)
        seconds[size] = interleaved({"": run}, 1 if quick else ROUNDS, repeats)[""]
    medians = [float(np.median(seconds[size])) for size in sizes]
    peaks = [peak_bytes(series, size) for size in sizes]
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
        lines.append(
            [
                f"{row['series']}, {sizes[0]:,} to {sizes[-1]:,} ({row['operation']})",
                f"{times[0]:,.0f} to {times[-1]:,.0f}",
                f"{row['time_exponent']:.2f}",
                f"{peaks[0] / 1e6:.2f} to {peaks[-1] / 1e6:,.1f}",
                f"{row['memory_exponent']:.2f}",
            ]
        )
    return table(["what grows", "µs", "exponent", "MB", "exponent"], lines)
