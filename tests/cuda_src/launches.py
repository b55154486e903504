"""python -m tests.cuda_src launches: cuda_src/LAUNCHES.md, what a training step asks of a GPU, launch by launch.

A step of each network, with Adam and labels, is recorded on the emulated device. The package's own launch code makes
it, captured as the CUDA graph that it is on a GPU. Nothing is timed.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_nn import Adam, Network, Trainer
from gpu_nn.kernels.cuda_kernels.sources import source_folder

FILE = source_folder() / "LAUNCHES.md"

# Widths and batch size of the networks that benchmarks/step.py times.
NETWORKS = {"A1": ([784, 256, 128, 10], 128), "A2": ([784, 1024, 1024, 10], 256), "A3": ([64, 64, 10], 32)}

_ABOUT = """\
# Launches of a training step

Made by `python -m tests.cuda_src launches`. These are the launches of one step, forward, loss, backward and Adam, as
the package's launch code makes them with nvmath-python. On a GPU they are one CUDA graph, captured at the second step
of a batch shape and launched as a whole from then on. They are recorded on the emulated device.

Bytes are those that a launch has to read and write, labels and counters included; B is the bandwidth of a copy within
the device's memory, F the rate of matrix products. The last row is the least that a step can take where nothing stays
in a cache. No time is measured here.

Without nvmath-python the same kernels run, one launch after the other. The bias, its gradient, and ReLU in both
directions are then kernels of their own: `bias_activation`, `bias_activation_backward`, `chunk_sums` and `column_sum`.
"""

# How often each array of a launch crosses the bus, in the order of its arguments: 2 for what is read and written.
_MOVED = {
    "adam": (2, 1, 2, 2, 1, 1),
    "increment": (2,),
    "bias_activation": (1, 1, 1),
    "bias_activation_backward": (2, 1, 1),
    "cast": (1, 1),
    "chunk_sums": (1, 1),
    "column_sum": (1, 1),
    "gemm": (1, 1, 0, 1, 1, 1),  # A, B, C, D, the bias and the mask: C is D, and is not read
    "softmax_cross_entropy": (1, 1, 1, 1),
}


@dataclass(frozen=True)
class Launch:
    """One launch of a step. flops: multiplications and additions of a matrix product."""

    name: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    bytes: int
    flops: int = 0


def launches_of(widths: list[int], batch: int, dtype: str = "float32") -> list[Launch]:
    """The launches of a step of a network in that precision in their order."""
    from tests.cuda_emulator.device import emulated_device
    from tests.cuda_emulator.work import watched

    random = np.random.default_rng(0)
    x = random.random((2 * batch, widths[0]), dtype=np.float32)
    y = random.integers(0, widths[-1], len(x))
    with emulated_device(nvmath=True) as device, watched() as works:
        Trainer(Network(widths, device=device, dtype=dtype), Adam(1e-3), batch_size=batch).fit(x, y, epochs=1)
    # Steps end with Adam: the eager one, the captured one while it is captured, and its graph.
    _, captured, launched = (i for i, work in enumerate(works) if work.name.startswith("adam"))
    return [_launch(work) for work in works[captured + 1 : launched + 1]]


def _launch(work: Any) -> Launch:
    function = work.name.partition("<")[0]
    arrays = [argument for argument in work.arguments if hasattr(argument, "address")]
    if function == "gather":
        source, order, first, out = arrays
        moved = (
            math.prod(out.shape) * source.dtype.itemsize
            + out.shape[0] * order.dtype.itemsize
            + first.nbytes
            + out.nbytes
        )
        return Launch(function, work.grid, work.block, moved)
    if function == "record_loss":
        losses, steps, position = arrays
        return Launch(function, work.grid, work.block, losses.nbytes + steps.dtype.itemsize + 2 * position.nbytes)
    operation = max((name for name in _MOVED if function.startswith(name)), key=len)
    moved = sum(times * array.nbytes for times, array in zip(_MOVED[operation], arrays, strict=False))
    flops = 0
    if operation == "gemm":
        a, _, _, d = arrays[:4]
        flops = 2 * math.prod(d.shape) * (math.prod(a.shape) // d.shape[0])
    return Launch(function, work.grid, work.block, moved, flops)


def text() -> str:
    """LAUNCHES.md as the launch code makes it now."""
    return "\n".join([_ABOUT, *(_section(name, *network) for name, network in NETWORKS.items())])


def _section(name: str, widths: list[int], batch: int) -> str:
    launches = launches_of(widths, batch)
    rows = [["launch", "grid", "block", "bytes", "floor"], ["---", *["---:"] * 4]]
    for launch in launches:
        floor = f"{launch.bytes:,} / B"
        if launch.flops:
            floor = f"max({floor}, {launch.flops:,} / F)"
        rows.append([f"`{launch.name}`", _shape(launch.grid), _shape(launch.block), f"{launch.bytes:,}", floor])
    moved, flops = sum(launch.bytes for launch in launches), sum(launch.flops for launch in launches)
    rows.append([f"**{len(launches)} launches**", "", "", f"{moved:,}", f"≥ max({moved:,} / B, {flops:,} / F)"])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([f"## {name}: {'-'.join(map(str, widths))}, batch {batch}, float32", "", *lines, ""])


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) if shape else "cublasLt's"


def main() -> None:
    FILE.write_text(text(), encoding="utf-8")
    print(f"the launches of {', '.join(NETWORKS)} are in {FILE.name}")
