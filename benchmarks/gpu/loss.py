"""Loss and gradient of given logits on a GPU, one launch each, by number of classes.

Shapes: CLASSES, with as many rows as fill the given bytes. Types float32, bfloat16 and float16; targets are indices or
dense; the cost is the standard cross entropy or the full cost. Baselines, for indices in float32 and bfloat16: PyTorch,
eager and compiled, and Liger, on the same logits. Floor: a copy that moves as many bytes.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from benchmarks import baselines
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.kernels import NOISE_FACTOR, NOISE_MODULUS, Workload, floor_cells, named_dtype, noise
from benchmarks.results import named, table
from benchmarks.timing import OURS, Run, cell, compared, percent
from gpu_nn.device import Array, Device
from gpu_nn.kernels import kernels_for

CLASSES = (2, 10, 32, 100, 256, 1000, 1025, 4096, 16384, 32768, 65536, 131072, 262144)
DTYPES = ("float32", "bfloat16", "float16")
TARGETS = ("index", "dense")
COSTS = {"standard": 0.0, "full": 1.0}  # complement_weight
COLUMNS = list(product(DTYPES, TARGETS, COSTS))
BASELINES = ("torch eager", "torch.compile", "Liger")
_BASELINE_DTYPES = ("float32", "bfloat16")
_COMPILED_CLASSES = (256, 1000, 4096, 32768)  # each takes many seconds to compile
# Relative difference of equal costs: baselines sum a half type in that type.
_SAME = {"float32": 1e-3, "bfloat16": 2e-2}


def workloads(device: Device, size: int, emulated: bool) -> Iterator[Workload]:
    """Every cell, over `size` bytes of logits."""
    classes = (2, 10, 100, 1000) if emulated else CLASSES
    for m, dtype, target, cost in product(classes, DTYPES, TARGETS, COSTS):
        itemsize = named_dtype(dtype).itemsize
        n = max(1, size // (m * itemsize))
        moved = 2 * n * m * itemsize + n * 4 + (n * m * 4 if target == "dense" else n * 8)
        facts = {"kernel": "softmax_cross_entropy", "m": m, "n": n, "dtype": dtype, "target": target, "cost": cost}
        yield Workload(facts, moved, partial(_our_run, device, facts))


def _our_run(device: Device, facts: dict[str, Any]) -> Run:
    xp, kernels = device.xp, kernels_for(device)
    n, m = facts["n"], facts["m"]
    z = noise(device, n * m).reshape(n, m).astype(named_dtype(facts["dtype"]))
    y = xp.arange(n, dtype=np.int64) * 7919 % m
    if facts["target"] == "dense":
        y = xp.full((n, m), 1 / m, np.float32)
    loss, dz = xp.empty(n, np.float32), xp.empty_like(z)
    weight = COSTS[facts["cost"]]

    def run() -> Array:
        kernels.softmax_cross_entropy(z, y, loss, dz, complement_weight=weight)
        return loss

    return run


def measured(device: Device, clock: Clock, workload: Workload, compiled: bool) -> tuple[dict[str, Any], list[str]]:
    """The row of a cell, and the baselines that are absent or compute another cost. `device` holds the arrays."""
    facts = workload.facts
    absent: list[str] = []
    runs: dict[str, Run] = {OURS: workload.prepare()}
    ours = float(runs[OURS]().sum(dtype=np.float64))
    for name, made in baseline_runs(facts, clock.emulated, compiled):
        with named(f"{name} at {described(facts)}", absent):
            run = made()
            theirs = float(run())
            if np.isclose(theirs, ours, rtol=_SAME[facts["dtype"]]):
                runs[name] = run
            else:
                reason = f"it computes {theirs:g}, ours {ours:g}: not the same cost"
                absent.append(f"{name} at {described(facts)} ({reason})")
    return {**facts, **clock.beside_a_copy(workload.bytes, runs)}, absent


def described(facts: dict[str, Any]) -> str:
    return f"{facts['n']} × {facts['m']}, {facts['dtype']}, {facts['cost']}"


def takes_baselines(facts: dict[str, Any]) -> bool:
    return facts["target"] == "index" and facts["dtype"] in _BASELINE_DTYPES


def is_compiled(facts: dict[str, Any]) -> bool:
    """Whether torch.compile takes part in a cell."""
    return takes_baselines(facts) and facts["m"] in _COMPILED_CLASSES


def baseline_runs(facts: dict[str, Any], emulated: bool, compiled: bool) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Name of each baseline and what makes its run, which computes loss and gradient and returns the loss."""
    if baselines.why_no_torch(emulated) or not takes_baselines(facts):
        return
    import torch

    z, y = _logits(torch, facts)
    standard = facts["cost"] == "standard"
    cost = baselines.torch_standard if standard else baselines.torch_full
    yield "torch eager", lambda: baselines.torch_run(cost, z, y)
    if standard and not baselines.why_no_liger(emulated):
        yield "Liger", lambda: baselines.torch_run(_liger(), z, y)
    if compiled and is_compiled(facts):
        torch.compiler.reset()  # code seen with other shapes would be compiled for any
        yield "torch.compile", lambda: baselines.torch_run(torch.compile(cost), z, y)


def _logits(torch: Any, facts: dict[str, Any]) -> tuple[Any, Any]:
    """The logits and labels of `_our_run`."""
    n, m, where = facts["n"], facts["m"], baselines.TORCH_DEVICE
    z = (torch.arange(n * m, device=where) * NOISE_FACTOR % NOISE_MODULUS).float() * (10 / NOISE_MODULUS) - 5
    z = z.reshape(n, m).to(getattr(torch, facts["dtype"])).requires_grad_()
    return z, torch.arange(n, device=where) * 7919 % m


def _liger() -> Callable:
    from liger_kernel.transformers import LigerCrossEntropyLoss

    cost: Callable = LigerCrossEntropyLoss(reduction="sum")
    return cost


def shares_table(result: dict[str, Any]) -> str:
    """The loss's share of copy bandwidth by number of classes, for each type, target and cost."""
    lines = []
    shares = {(row["m"], row["dtype"], row["target"], row["cost"]): row["share_of_copy"] for row in result["loss"]}
    for m in sorted({row["m"] for row in result["loss"]}):
        found = [shares.get((m, *column)) for column in COLUMNS]
        lines.append([f"{m:,}", *("not run" if share is None else percent(share) for share in found)])
    return table(["classes, share of a copy", *(", ".join(column) for column in COLUMNS)], lines)


def markdown(result: dict[str, Any]) -> str:
    """Ours beside the baselines where they take part."""
    lines = []
    for row in filter(takes_baselines, result["loss"]):
        label = f"{row['n']:,} × {row['m']:,}, {row['dtype']}, {row['cost']}"
        theirs = [compared(row, name) for name in BASELINES]
        lines.append([label, cell(row["microseconds"][OURS]), *theirs, *floor_cells(row)])
    return table(["loss and gradient, µs", OURS, *BASELINES, "copying as many bytes", "our share"], lines)
