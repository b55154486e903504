"""A last layer with very many classes on a GPU: loss and gradients by chunks of rows, and with all logits at once.

Shapes: ROWS × CLASSES × INPUTS in float32. Memory is what CuPy's pool takes beyond inputs and outputs, from a pool that
was emptied before.
"""

from typing import Any

import numpy as np

from benchmarks.gpu.clock import Clock
from benchmarks.results import table
from benchmarks.timing import Run, cell, ratios, spreads
from gpu_nn import functional as F
from gpu_nn.device import Array, Device

ROWS, INPUTS = 8192, 1024
CLASSES = (32_768, 131_072, 262_144)
CHUNKS, WHOLE = "chunks", "all logits at once"


def measured(device: Device, clock: Clock, emulated: bool) -> list[dict[str, Any]]:
    """A row for each number of classes; a way that does not fit into memory is missing from it."""
    rows, inputs = (64, 8) if emulated else (ROWS, INPUTS)
    found = []
    for m in (100,) if emulated else CLASSES:
        arrays = _arrays(device, rows, inputs, m)
        beyond: dict[str, int] = {}
        runs: dict[str, Run] = {}
        for way, chunk_rows in ((CHUNKS, None), (WHOLE, rows)):
            try:
                run = _run(arrays, chunk_rows)
                beyond[way] = _beyond(device, run)
                runs[way] = run
            except MemoryError:
                pass
        seconds = clock.times(runs)
        faster = ratios(seconds, CHUNKS) if CHUNKS in seconds else {}
        sizes = {"classes": m, "rows": rows, "inputs": inputs, "logits_bytes": 4 * rows * m}
        found.append({**sizes, "bytes_beyond": beyond, "microseconds": spreads(seconds), "times_as_fast": faster})
    return found


def _arrays(device: Device, rows: int, inputs: int, m: int) -> list[Array]:
    xp = device.xp
    with device.active():
        a = (xp.arange(rows * inputs, dtype=np.int64) * 48271 % 65521).astype(np.float32).reshape(rows, inputs) / 65521
        w = (xp.arange(inputs * m, dtype=np.int64) * 48271 % 65521).astype(np.float32).reshape(inputs, m) / 65521
        return [a, w, xp.zeros(m, np.float32), xp.arange(rows, dtype=np.int64) * 7919 % m]


def _run(arrays: list[Array], chunk_rows: int | None) -> Run:
    return lambda: F.linear_softmax_cross_entropy_with_grad(*arrays, chunk_rows=chunk_rows)


def _beyond(device: Device, run: Run) -> int:
    pool = device.xp.get_default_memory_pool()
    run()  # kernels are compiled and scratch memory is made
    pool.free_all_blocks()
    before = pool.total_bytes()
    outputs = run()
    return int(pool.total_bytes() - before - sum(output.nbytes for output in outputs if output is not None))


def markdown(result: dict[str, Any]) -> str:
    lines = []
    for row in result["large_m"]:
        cells = []
        for way in (CHUNKS, WHOLE):
            beyond = row["bytes_beyond"].get(way)
            memory = "" if beyond is None else f", {beyond / 2**20:,.0f} MiB"
            cells.append("not enough memory" if beyond is None else cell(row["microseconds"][way]) + memory)
        label = f"{row['rows']:,} × {row['classes']:,} × {row['inputs']:,}"
        lines.append([label, *cells, f"{row['logits_bytes'] / 2**20:,.0f} MiB"])
    return table(
        ["linear layer, loss and gradients, µs; beyond inputs and outputs", CHUNKS, WHOLE, "all logits"], lines
    )
