"""python -m benchmarks gpu: everything that needs a GPU, in one call of under ten minutes.

The tests marked gpu; the accuracy table; the bandwidth of every kernel as a share of a measured device copy; the loss
beside PyTorch's, eager and compiled: medians of single launches between CUDA events, each on data well past the L2
cache. A training step as a CUDA graph and kernel by kernel, beside PyTorch's: medians of epochs. Results go to
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
from typing import Any

import numpy as np

from benchmarks import accuracy, gpu_large_m
from benchmarks.gpu_kernels import LOSS_COLUMNS, Workload, loss_workloads, other_workloads
from benchmarks.gpu_peers import compiled_peers, eager_peers, missing_peers
from benchmarks.gpu_steps import measured as measured_steps
from benchmarks.results import machine, table, write
from gpu_nn.device import Device, resolve_device

LAUNCHES = 21
SECONDS = 540  # what starts after this is left out, and named


class Clock:
    """Seconds of one launch: CUDA events on a GPU, the host's clock where the kernels are emulated."""

    def __init__(self, device: Device, emulated: bool):
        self.cuda, self.emulated = device.xp.cuda, emulated
        self.launches = 1 if emulated else LAUNCHES

    def median(self, run: Callable[[], object]) -> float:
        for _ in range(1 if self.emulated else 3):
            run()
        return float(np.median([self._once(run) for _ in range(self.launches)]))

    def _once(self, run: Callable[[], object]) -> float:
        if self.emulated:
            began = time.perf_counter()
            run()
            return time.perf_counter() - began
        begin, end = self.cuda.Event(), self.cuda.Event()
        begin.record()
        run()
        end.record()
        end.synchronize()
        return float(self.cuda.get_elapsed_time(begin, end)) / 1e3


def copy_bandwidth(device: Device, clock: Clock, size: int) -> float:
    """Bytes read and written a second by a copy of `size` bytes within the device's memory."""
    source = device.xp.zeros(size // 4, np.float32)
    target = device.xp.empty_like(source)
    return 2 * source.nbytes / clock.median(lambda: device.xp.copyto(target, source))


def measured(workload: Workload, clock: Clock, copy: float) -> dict[str, Any]:
    run = workload.prepare()
    seconds = clock.median(run)
    rate = workload.bytes / seconds
    return {**workload.facts, "seconds": seconds, "bytes": workload.bytes, "share_of_copy": rate / copy}


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
    """The loss's share of copy bandwidth by number of classes, for each type, target and cost."""
    rows = [row for row in result["kernels"] if row["kernel"] == "softmax_cross_entropy"]
    classes = sorted({row["m"] for row in rows})
    lines = []
    for m in classes:
        found = {(row["dtype"], row["target"], row["cost"]): row["share_of_copy"] for row in rows if row["m"] == m}
        cells = [f"{100 * found[column]:.0f} %" if column in found else "" for column in LOSS_COLUMNS]
        lines.append([str(m), *cells])
    return table(["classes", *(", ".join(column) for column in LOSS_COLUMNS)], lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu")
    parser.add_argument("--emulated", action="store_true", help="tiny sizes on the CPU emulation; writes nothing")
    emulated = parser.parse_args(sys.argv[2:]).emulated
    began = time.perf_counter()
    with chosen_device(emulated) as device:
        result = measurements(device, emulated, lambda: time.perf_counter() - began < SECONDS)
    result["seconds"] = time.perf_counter() - began
    if not emulated:
        write("gpu", result)
    print(markdown(result))
    for row in result["kernels"]:
        if row["kernel"] != "softmax_cross_entropy":
            print(f"{row['kernel']}, {row['dtype']}: {100 * row['share_of_copy']:.0f} % of copy bandwidth")
    for row in result["steps"]:
        print(f"step of {row['network']}, {row['dtype']}, {row['way']}: {1e6 * row['seconds']:.1f} µs")
    for row in result["large_m"]:
        used = "not enough memory" if row["seconds"] is None else f"{row['seconds']:.3f} s"
        beyond = (
            "" if row["bytes_beyond"] is None else f", {row['bytes_beyond'] / 2**20:,.0f} MiB beyond inputs and outputs"
        )
        print(f"{row['rows']} rows of {row['classes']} classes, {row['way']}: {used}{beyond}")
    print(f"not run: {', '.join(result['left_out']) or 'nothing'}")
    print(f"tests: {result['tests']['summary']}")


def measurements(device: Device, emulated: bool, in_time: Callable[[], bool]) -> dict[str, Any]:
    clock = Clock(device, emulated)
    size = 1 << 14 if emulated else 1 << 30
    copy = copy_bandwidth(device, clock, size)
    left_out = missing_peers()
    kernels, peers = [], []
    for workload in [*loss_workloads(device, size // 2, emulated), *other_workloads(device, size // 2)]:
        kernels.append(measured(workload, clock, copy))
    rows = accuracy_on(device, emulated)
    for peer in [*eager_peers(size // 2, emulated), *compiled_peers(size // 2, emulated)]:
        if in_time():
            peers.append(measured(peer, clock, copy))
        else:
            left_out.append(f"{peer.facts['kernel']} at {peer.facts['m']} classes (no time left)")
    steps, steps_left_out = measured_steps(device, emulated, in_time)
    large_m = gpu_large_m.measured(device, emulated, clock.median)
    tests = {"summary": "not run on the emulated device"} if emulated else gpu_tests()
    return {
        "machine": machine("numpy") | _gpu(device, emulated),
        "copy_bandwidth": copy,
        "kernels": kernels,
        "steps": steps,
        "large_m": large_m,
        "peers": peers,
        "accuracy": rows,
        "left_out": left_out + steps_left_out,
        "tests": tests,
    }


def _gpu(device: Device, emulated: bool) -> dict[str, Any]:
    """The GPU, its driver and its clocks as nvidia-smi gives them, and CuPy's version."""
    facts: dict[str, Any] = {"cupy": device.xp.__version__}
    if emulated:
        return facts | {"gpu": "emulated"}
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit"
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    return facts | dict(zip(query.split(","), (part.strip() for part in done.stdout.split(",")), strict=False))
