"""python -m benchmarks gpu: everything that needs a GPU, in one call of under ten minutes.

The loss by number of classes (gpu/loss.py), the other kernels (gpu/kernels.py), a training step (gpu/steps.py), a last
layer with very many classes (gpu/large_m.py), the accuracy table, and the tests marked gpu but not slow. Writes
benchmarks/results/gpu.json, after each part what there is so far. A part that fails is named, and the rest goes on; the
exit code is then 1.

`python -m tests.benchmarks` runs the same program at tiny sizes on the emulated device.
"""

import argparse
import contextlib
import logging
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from benchmarks import baselines, results
from benchmarks.gpu import kernels, large_m, loss, steps
from benchmarks.gpu.clock import Clock
from benchmarks.gpu.kernels import Workload
from benchmarks.timing import OURS
from gpu_nn import functional as F
from gpu_nn.device import Device, resolve_device
from gpu_nn.testing import accuracy

# For everything, and for the tests at the end; what may take a minute is left out, and named, where it would not leave
# the tests their time.
SECONDS, FOR_TESTS = 580.0, 160.0
TO_STOP = 10.0  # what pytest has when its time is over, to say how far it came
MOST_NAMED = 50  # failed tests
# The least share of copy bandwidth; the least share of the matrix products; how many times as fast as a baseline.
COPY_GOAL, PRODUCTS_GOAL = 0.9, 0.95
STEP_GOALS = {steps.TORCH_EAGER: 4.0, steps.REDUCE_OVERHEAD: 1.2}
PACKAGES = ("numpy", "torch", "triton", "liger-kernel", "nvmath-python")


def _release(device: Device) -> None:
    """Free the memory that the pools of CuPy and of PyTorch keep, so that each finds room."""
    device.xp.get_default_memory_pool().free_all_blocks()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()


def accuracy_on(device: Device, emulated: bool) -> list[dict[str, Any]]:
    """The accuracy table with our kernels on the device."""

    def ours(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        loss, dz = F.softmax_cross_entropy_with_grad(device.asarray(z), device.asarray(y), reduction="none")
        return device.to_host(loss), device.to_host(dz)

    sizes: dict[str, Any] = {"classes": (3,), "scales": (50,)} if emulated else {}
    return list(accuracy.cells(ours, **sizes))


def markdown(result: dict[str, Any]) -> str:
    tables = (loss.shares_table, loss.markdown, kernels.markdown, steps.markdown, large_m.markdown, _conditions)
    return "\n\n".join(table(result) for table in tables)


def _conditions(result: dict[str, Any]) -> str:
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    tests = result["tests"]["summary"]
    return f"{machine['gpu']}; {versions}. A copy moves {result['copy_bandwidth'] / 1e9:,.0f} GB/s. Tests: {tests}."


def goals(result: dict[str, Any]) -> list[results.Goal]:
    found: list[results.Goal] = []
    for m in sorted({*loss.CLASSES, *(row["m"] for row in result["loss"])}):
        shares = [row["share_of_copy"] for row in result["loss"] if row["m"] == m]
        found.append((f"loss, {m} classes, least share of copy bandwidth", min(shares, default=None), COPY_GOAL))
    networks = {row["network"]: row for row in result["steps"]}
    for network in ("A1", "A3"):
        faster = networks.get(network, {}).get("times_as_fast", {})
        found += [(f"step of {network} × {name}", faster.get(name), goal) for name, goal in STEP_GOALS.items()]
    found.append(("step of wide, share of products", networks.get("wide", {}).get("share_of_products"), PRODUCTS_GOAL))
    return found


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__.splitlines()[0]).parse_args()
    sys.exit(run(resolve_device("cuda")))


def run(device: Device, emulated: bool = False) -> int:
    """Measure all, and print it; the exit code. emulated: at tiny sizes, and no file is written."""
    began = time.perf_counter()

    def keep(result: dict[str, Any]) -> None:
        result["seconds"] = time.perf_counter() - began
        if not emulated:
            results.write("gpu", result)

    result = measurements(device, emulated, lambda: SECONDS - (time.perf_counter() - began), keep)
    print(results.shown(markdown(result), result))
    for line in (*results.against_goals(goals(result)), *result["tests"].get("wrong", ())):
        print(line)
    return int(bool(result["failed"] or result["tests"].get("failed")))


def measurements(
    device: Device, emulated: bool, left: Callable[[], float], keep: Callable[[dict[str, Any]], None] = lambda _: None
) -> dict[str, Any]:
    """Every part. keep: called after each part with the result so far. left: the seconds that remain. Cells that wait
    for torch.compile come last, since they may use up the time."""
    clock = Clock(device, emulated)
    size = 1 << 14 if emulated else 1 << 30
    absent = baselines.absent_on_gpu(emulated)
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

    @contextlib.contextmanager
    def part(what: str) -> Iterator[None]:
        with results.named(what, failed):
            yield
        _release(device)

    def measure_loss(workload: Workload, compiled: bool) -> None:
        with part(f"loss at {loss.described(workload.facts)}"):
            row, gone = loss.measured(device, clock, workload, compiled)
            result["loss"].append(row)
            absent.extend(gone)

    later: list[Workload] = []
    with _warnings_into(absent):
        for workload in loss.workloads(device, size // 2, emulated):
            if loss.is_compiled(workload.facts):
                later.append(workload)
            else:
                measure_loss(workload, False)
        keep(result)
        for workload in kernels.workloads(device, size // 2):
            with part(workload.facts["kernel"]):
                found = clock.beside_a_copy(workload.bytes, {OURS: workload.prepare()})
                result["kernels"].append({**workload.facts, **found})
        keep(result)
        result["steps"], gone = steps.measured(device, emulated, result["copy_bandwidth"], in_time, failed)
        absent += gone
        _release(device)
        keep(result)
        with part("a last layer with very many classes"):
            result["large_m"] = large_m.measured(device, clock, emulated)
        with part("accuracy"):
            result["accuracy"] = accuracy_on(device, emulated)
        for workload in later:
            compiled = in_time()
            measure_loss(workload, compiled)
            if not compiled:
                absent.append(f"torch.compile at {loss.described(workload.facts)} (no time left)")
    keep(result)
    if not emulated:
        result["tests"] = run_tests(left())
        keep(result)
    return result


class _Collect(logging.Handler):
    def __init__(self, reasons: list[str]):
        super().__init__(logging.WARNING)
        self.reasons = reasons

    def emit(self, record: logging.LogRecord) -> None:
        self.reasons.append(record.getMessage())


@contextlib.contextmanager
def _warnings_into(reasons: list[str]) -> Iterator[None]:
    """Collect the warnings of gpu_nn, such as that a step is no CUDA graph."""
    log, handler = logging.getLogger("gpu_nn"), _Collect(reasons)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _gpu(device: Device, emulated: bool) -> dict[str, Any]:
    """The GPU, its driver and its clocks from nvidia-smi, and the versions of what is measured."""
    runtime = device.xp.cuda.runtime.runtimeGetVersion()
    versions = baselines.versions(PACKAGES)
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


def run_tests(seconds: float, pytest: Sequence[str] = (sys.executable, "-m", "pytest")) -> dict[str, Any]:
    """The tests marked gpu but not slow, stopped after so many seconds.

    summary: pytest's last line. wrong: its lines of failures. failed: whether a test or pytest itself failed; running
    out of time is no failure, and the summary says so.
    """
    options = ("-q", "-m", "gpu and not slow", "-p", "no:cacheprovider", "--continue-on-collection-errors")
    with subprocess.Popen([*pytest, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            out, stopped = running.communicate(timeout=max(seconds, 0))[0], False
        except subprocess.TimeoutExpired:
            stopped = True
            running.send_signal(signal.SIGINT)  # pytest then says how far it came
            try:
                out = running.communicate(timeout=TO_STOP)[0]
            except subprocess.TimeoutExpired:
                running.kill()
                out = running.communicate()[0]
    lines = out.strip().splitlines() or [""]
    wrong = [line for line in lines if line.startswith(("FAILED ", "ERROR "))]
    summary = f"{lines[-1]}, stopped after {seconds:.0f} s" if stopped else lines[-1]
    failed = bool(wrong) or (running.returncode != 0 and not stopped)
    return {"summary": summary, "wrong": wrong[:MOST_NAMED], "failed": failed}
