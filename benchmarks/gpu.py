"""python -m benchmarks gpu: everything that needs a GPU, in one call of under ten minutes.

The loss by number of classes, ours by turns with PyTorch's, eager and compiled, with Liger's, and with a copy that
moves as many bytes: single launches between CUDA events, each on data well past the L2 cache. The other kernels beside
such a copy. A training step as a CUDA graph and kernel by kernel, by turns with PyTorch's and with the matrix products
alone: whole epochs. A last layer with very many classes. The accuracy table, and the tests marked gpu. Results go to
benchmarks/results/gpu.json.

--emulated runs the same program at tiny sizes on the CPU emulation of the kernels, where times mean nothing; it writes
no file, and only shows that the program reaches its end.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks import accuracy, gpu_large_m, gpu_peers, gpu_steps, gpu_tables, peers, results
from benchmarks.gpu_clock import Clock
from benchmarks.gpu_kernels import CLASSES, Workload, loss_workloads, other_workloads
from benchmarks.timing import OURS
from gpu_nn.device import Device, resolve_device

SECONDS = 540  # what starts after this is left out, and named
# The least share of copy bandwidth; times as fast as a peer, ours as a graph; and the least share of the products.
COPY_GOAL, PRODUCTS_GOAL = 0.9, 0.95
STEP_GOALS = {gpu_steps.TORCH_EAGER: 4.0, gpu_steps.REDUCE_OVERHEAD: 1.2}
# Costs that are the same: peers sum a half type in that type.
_SAME = {"float32": 1e-3, "bfloat16": 2e-2}
PACKAGES = ("numpy", "torch", "triton", "liger-kernel", "nvmath-python")


def loss_row(device: Device, clock: Clock, workload: Workload, compiled: bool) -> tuple[dict[str, Any], list[str]]:
    """A cell of the loss with the peers that compute the same cost, and those that do not."""
    facts, absent = workload.facts, []
    runs: dict[str, Callable[[], Any]] = {OURS: workload.prepare()}
    ours = float(runs[OURS]().sum(dtype=np.float64))
    for name, run in gpu_peers.runs(facts, clock.emulated, compiled):
        theirs = float(run())
        if np.isclose(theirs, ours, rtol=_SAME[facts["dtype"]]):
            runs[name] = run
        else:
            absent.append(f"{name} at {_cell(facts)} (it computes {theirs:g}, ours {ours:g}: not the same cost)")
    row = {**facts, **clock.beside_a_copy(workload.bytes, runs)}
    runs.clear()
    _release(device)
    return row, absent


def _cell(facts: dict[str, Any]) -> str:
    return f"{facts['n']} × {facts['m']}, {facts['dtype']}, {facts['cost']}"


def _release(device: Device) -> None:
    """Memory that the pools of CuPy and of PyTorch keep, so that each finds room."""
    device.xp.get_default_memory_pool().free_all_blocks()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


def gpu_tests() -> dict[str, Any]:
    """The tests marked gpu, in a process of their own."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    lines = done.stdout.strip().splitlines()
    return {"exit_code": done.returncode, "summary": lines[-1] if lines else done.stderr[-500:]}


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
    emulated = parser.parse_args(sys.argv[2:]).emulated
    began = time.perf_counter()
    with chosen_device(emulated) as device:
        result = measurements(device, emulated, lambda: time.perf_counter() - began < SECONDS)
    result["seconds"] = time.perf_counter() - began
    if not emulated:
        results.write("gpu", result)
    module = import_module("benchmarks.gpu")
    print(results.shown(module, result))
    for line in results.against_goals(module, result):
        print(line)


def measurements(device: Device, emulated: bool, in_time: Callable[[], bool]) -> dict[str, Any]:
    """All of it. What waits for torch.compile comes last, for it may use up the time."""
    clock = Clock(device, emulated)
    size = 1 << 14 if emulated else 1 << 30
    copy_bandwidth = clock.copy_bandwidth(size)
    absent = gpu_peers.absent(emulated)
    losses: list[dict[str, Any]] = []
    later: list[Workload] = []

    def measure_loss(workload: Workload, compiled: bool) -> None:
        row, gone = loss_row(device, clock, workload, compiled)
        losses.append(row)
        absent.extend(gone)

    for workload in loss_workloads(device, size // 2, emulated):
        if gpu_peers.compiles(workload.facts):
            later.append(workload)
        else:
            measure_loss(workload, False)
    kernels = []
    for workload in other_workloads(device, size // 2):
        kernels.append({**workload.facts, **clock.beside_a_copy(workload.bytes, {OURS: workload.prepare()})})
        _release(device)
    steps, gone = gpu_steps.measured(device, emulated, copy_bandwidth, in_time)
    absent += gone
    _release(device)
    large_m = gpu_large_m.measured(device, clock, emulated)
    accurate = accuracy_on(device, emulated)
    for workload in later:
        compiled = in_time()
        measure_loss(workload, compiled)
        if not compiled:
            absent.append(f"torch.compile at {_cell(workload.facts)} (no time left)")
    tests = {"summary": "not run on the emulated device"} if emulated else gpu_tests()
    return {
        "machine": results.machine() | _gpu(device, emulated),
        "absent": absent,
        "copy_bandwidth": copy_bandwidth,
        "loss": losses,
        "kernels": kernels,
        "steps": steps,
        "large_m": large_m,
        "accuracy": accurate,
        "tests": tests,
    }


def _gpu(device: Device, emulated: bool) -> dict[str, Any]:
    """The GPU, its driver and its clocks as nvidia-smi gives them, and the versions of all that was measured."""
    runtime = device.xp.cuda.runtime.runtimeGetVersion()
    versions = peers.versions(PACKAGES)
    versions |= {"cupy": device.xp.__version__, "CUDA runtime": f"{runtime // 1000}.{runtime % 1000 // 10}"}
    if emulated:
        return {"gpu": "emulated", "versions": versions}
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit"
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    facts = dict(zip(query.split(","), (part.strip() for part in done.stdout.split(",")), strict=False))
    versions["driver"] = facts.pop("driver_version", "unknown")
    return {"gpu": facts.pop("name", "unknown") or "unknown", **facts, "versions": versions}
