"""python -m benchmarks gpu: everything that needs a GPU, in one call of under ten minutes.

The loss by number of classes, ours by turns with PyTorch's, eager and compiled, with Liger's, and with a copy that
moves as many bytes: single launches between CUDA events, each on data well past the L2 cache. The other kernels beside
such a copy. A training step as a CUDA graph and kernel by kernel, by turns with PyTorch's and with the matrix products
alone: whole epochs. A last layer with very many classes. The accuracy table, and the tests marked gpu but not slow.
Results go to benchmarks/results/gpu.json, after each part what there is so far. What fails is named, and the rest goes
on; the exit code is then 1.

--emulated runs the same program at tiny sizes on the CPU emulation of the kernels, where times mean nothing; it writes
no file, and only shows that the program reaches its end.
"""

import argparse
import contextlib
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks import accuracy, gpu_large_m, gpu_peers, gpu_steps, gpu_tables, gpu_tests, peers, results
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.kernels import CLASSES, Workload, loss_workloads, other_workloads
from benchmarks.timing import OURS
from gpu_nn.device import Device, resolve_device

# Of all of it, and for the tests at its end: what may take a minute and would start within the latter is left out, and
# named.
SECONDS, FOR_TESTS = 580.0, 160.0
# The least share of copy bandwidth; times as fast as a peer, ours as a graph; and the least share of the products.
COPY_GOAL, PRODUCTS_GOAL = 0.9, 0.95
STEP_GOALS = {gpu_steps.TORCH_EAGER: 4.0, gpu_steps.REDUCE_OVERHEAD: 1.2}
# Costs that are the same: peers sum a half type in that type.
_SAME = {"float32": 1e-3, "bfloat16": 2e-2}
PACKAGES = ("numpy", "torch", "triton", "liger-kernel", "nvmath-python")


def loss_row(device: Device, clock: Clock, workload: Workload, compiled: bool) -> tuple[dict[str, Any], list[str]]:
    """A cell of the loss with the peers that compute the same cost, and those that do not."""
    facts = workload.facts
    absent: list[str] = []
    runs: dict[str, Callable[[], Any]] = {OURS: workload.prepare()}
    ours = float(runs[OURS]().sum(dtype=np.float64))
    for name, made in gpu_peers.runs(facts, clock.emulated, compiled):
        with results.named(f"{name} at {_cell(facts)}", absent):
            run = made()
            theirs = float(run())
            if np.isclose(theirs, ours, rtol=_SAME[facts["dtype"]]):
                runs[name] = run
            else:
                absent.append(f"{name} at {_cell(facts)} (it computes {theirs:g}, ours {ours:g}: not the same cost)")
    return {**facts, **clock.beside_a_copy(workload.bytes, runs)}, absent


def _cell(facts: dict[str, Any]) -> str:
    return f"{facts['n']} × {facts['m']}, {facts['dtype']}, {facts['cost']}"


def _release(device: Device) -> None:
    """Memory that the pools of CuPy and of PyTorch keep, so that each finds room."""
    device.xp.get_default_memory_pool().free_all_blocks()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


def accuracy_on(device: Device, emulated: bool) -> list[dict[str, Any]]:
    """The accuracy table with our kernels on the device."""
    from gpu_nn import functional as F

    def ours(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        loss, dz = F.softmax_cross_entropy_with_grad(device.asarray(z), device.asarray(y), reduction="none")
        return device.to_host(loss), device.to_host(dz)

    sizes: dict[str, Any] = {"classes": (3,), "scales": (50,)} if emulated else {}
    return list(accuracy.cells(ours, **sizes))


@contextlib.contextmanager
def chosen_device(emulated: bool) -> Iterator[Device]:
    if not emulated:
        yield resolve_device("cuda")
        return
    from tests.cuda_emulator.device import emulated_device

    with emulated_device(nvmath=True) as device:
        yield device


def markdown(result: dict[str, Any]) -> str:
    tables = ("shares", "losses", "kernels", "steps", "large_m", "conditions")
    return "\n\n".join(getattr(gpu_tables, name)(result) for name in tables)


def goals(result: dict[str, Any]) -> list[tuple[str, float | None, float]]:
    """What, the figure (None where it is absent), and the goal."""
    found: list[tuple[str, float | None, float]] = []
    for m in sorted({*CLASSES, *(row["m"] for row in result["loss"])}):
        shares = [row["share_of_copy"] for row in result["loss"] if row["m"] == m]
        found.append((f"loss, {m} classes, least share of copy bandwidth", min(shares, default=None), COPY_GOAL))
    steps = {row["network"]: row for row in result["steps"]}
    for network in ("A1", "A3"):
        faster = steps.get(network, {}).get("times_as_fast", {})
        found += [(f"step of {network} × {peer}", faster.get(peer), goal) for peer, goal in STEP_GOALS.items()]
    found.append(("step of wide, share of products", steps.get("wide", {}).get("share_of_products"), PRODUCTS_GOAL))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu")
    parser.add_argument("--emulated", action="store_true", help="tiny sizes on the CPU emulation; writes nothing")
    emulated = parser.parse_args().emulated
    began = time.perf_counter()

    def keep(result: dict[str, Any]) -> None:
        result["seconds"] = time.perf_counter() - began
        if not emulated:
            results.write("gpu", result)

    with chosen_device(emulated) as device:
        result = measurements(device, emulated, lambda: SECONDS - (time.perf_counter() - began), keep)
    module = import_module("benchmarks.gpu")
    print(results.shown(module, result))
    for line in (*results.against_goals(module, result), *result["tests"].get("wrong", ())):
        print(line)
    if result["failed"] or result["tests"].get("failed"):
        sys.exit(1)


def measurements(
    device: Device, emulated: bool, left: Callable[[], float], keep: Callable[[dict[str, Any]], None] = lambda _: None
) -> dict[str, Any]:
    """All of it; `keep` gets after each part what there is. What waits for torch.compile comes last, for it may use up
    the time. left: how many seconds there are."""
    clock = Clock(device, emulated)
    size = 1 << 14 if emulated else 1 << 30
    absent = gpu_peers.absent(emulated)
    failed: list[str] = []
    result: dict[str, Any] = {
        "machine": results.machine() | _gpu(device, emulated),
        "absent": absent,
        "failed": failed,
        "copy_bandwidth": clock.copy_bandwidth(size),
        **{part: [] for part in ("loss", "kernels", "steps", "large_m", "accuracy")},
        "tests": {"summary": "not run on the emulated device" if emulated else "not reached"},
    }

    def in_time() -> bool:
        return left() > FOR_TESTS

    def measure_loss(workload: Workload, compiled: bool) -> None:
        with results.named(f"loss at {_cell(workload.facts)}", failed):
            row, gone = loss_row(device, clock, workload, compiled)
            result["loss"].append(row)
            absent.extend(gone)
        _release(device)

    def measure_kernel(workload: Workload) -> None:
        with results.named(workload.facts["kernel"], failed):
            found = clock.beside_a_copy(workload.bytes, {OURS: workload.prepare()})
            result["kernels"].append({**workload.facts, **found})
        _release(device)

    later: list[Workload] = []
    with _warnings_into(absent):
        for workload in loss_workloads(device, size // 2, emulated):
            if gpu_peers.compiles(workload.facts):
                later.append(workload)
            else:
                measure_loss(workload, False)
        keep(result)
        for workload in other_workloads(device, size // 2):
            measure_kernel(workload)
        keep(result)
        result["steps"], gone = gpu_steps.measured(device, emulated, result["copy_bandwidth"], in_time, failed)
        absent += gone
        _release(device)
        keep(result)
        with results.named("a last layer with very many classes", failed):
            result["large_m"] = gpu_large_m.measured(device, clock, emulated)
        _release(device)
        with results.named("accuracy", failed):
            result["accuracy"] = accuracy_on(device, emulated)
        for workload in later:
            compiled = in_time()
            measure_loss(workload, compiled)
            if not compiled:
                absent.append(f"torch.compile at {_cell(workload.facts)} (no time left)")
    keep(result)
    if not emulated:
        result["tests"] = gpu_tests.run(left())
        keep(result)
    return result


class _Said(logging.Handler):
    def __init__(self, reasons: list[str]):
        super().__init__(logging.WARNING)
        self.reasons = reasons

    def emit(self, record: logging.LogRecord) -> None:
        self.reasons.append(record.getMessage())


@contextlib.contextmanager
def _warnings_into(reasons: list[str]) -> Iterator[None]:
    """What gpu_nn warns of, as that a step is no graph, is said beside the figures."""
    log, handler = logging.getLogger("gpu_nn"), _Said(reasons)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _gpu(device: Device, emulated: bool) -> dict[str, Any]:
    """The GPU, its driver and its clocks as nvidia-smi gives them, and the versions of all that was measured."""
    runtime = device.xp.cuda.runtime.runtimeGetVersion()
    versions = peers.versions(PACKAGES)
    versions |= {"cupy": device.xp.__version__, "CUDA runtime": f"{runtime // 1000}.{runtime % 1000 // 10}"}
    if emulated:
        return {"gpu": "emulated", "versions": versions}
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", f"--id={device.index}"]
    try:
        line = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:
        line = ""
    facts = dict(zip(query.split(","), (part.strip() for part in line.split(",")), strict=False))
    versions["driver"] = facts.pop("driver_version", "unknown")
    return {"gpu": facts.pop("name", "unknown") or "unknown", **facts, "versions": versions}
