"""A training step on a GPU: ours as a CUDA graph and kernel by kernel, PyTorch's, and the matrix products alone.

All take batches out of data that lie on the device, by an order of rows drawn for each epoch, and step with Adam on the
everyday cross entropy, which PyTorch computes without NaN; ours also on the full cost. A time is that of an epoch over
its number of steps, the median of several epochs after the first, in which graphs are captured and kernels compiled.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.gpu_kernels import named_dtype
from benchmarks.step import NETWORKS
from gpu_nn import Adam, Network, Trainer
from gpu_nn.device import Device
from gpu_nn.kernels import cuda_kernels, kernels_for, why_no_half_products

EPOCHS = 6


@dataclass(frozen=True)
class Setting:
    """A network, its batch, batches of an epoch, and the type in which layers compute."""

    name: str
    widths: list[int]
    batch: int
    batches: int
    dtype: str = "float32"

    @property
    def rows(self) -> int:
        return self.batch * self.batches


def settings(emulated: bool) -> list[Setting]:
    if emulated:
        return [Setting("A3", [6, 8, 4], 4, 3), Setting("wide", [8, 16, 16, 4], 8, 3, "bfloat16")]
    networks = [Setting(name, widths, batch, 200) for name, (widths, batch, _) in NETWORKS.items()]
    return [*networks, Setting("wide", [4096] * 5, 8192, 8, "bfloat16")]


def measured(device: Device, emulated: bool, in_time: Callable[[], bool]) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each setting and way that there is, and what was left out, with the reason."""
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for setting in settings(emulated):
        for way, run in _ways(device, setting, emulated):
            what = f"step of {setting.name}, {way}"
            if isinstance(run, str):
                left_out.append(f"{what} ({run})")
            elif not in_time():
                left_out.append(f"{what} (no time left)")
            else:
                rows.append({"network": setting.name, "way": way, "dtype": setting.dtype, "seconds": run()})
    return rows, left_out


def _ways(device: Device, setting: Setting, emulated: bool) -> Iterator[tuple[str, Callable[[], float] | str]]:
    """Name, and what measures it or the reason why it cannot be."""
    problem = why_no_half_products(device)
    ours = problem if problem and setting.dtype != "float32" else ""
    yield "graph", ours or problem or (lambda: _our_step(device, setting, 0.0, graph=True))
    yield "graph, full cost", ours or problem or (lambda: _our_step(device, setting, 1.0, graph=True))
    yield "eager", ours or (lambda: _our_step(device, setting, 0.0, graph=False))
    yield "products alone", ours or (lambda: _products(device, setting))
    torch_there = find_spec("torch") is not None and not emulated
    for mode in ("eager", "compile, reduce-overhead"):
        reason = "" if torch_there else "PyTorch is not installed" if not emulated else "emulated"
        yield f"torch {mode}", reason or partial(_torch_step, setting, mode != "eager")


def _data(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    x = random.random((setting.rows, setting.widths[0]), dtype=np.float32)
    return x, random.integers(0, setting.widths[-1], setting.rows)


def _our_step(device: Device, setting: Setting, complement_weight: float, graph: bool) -> float:
    dtype = setting.dtype if setting.dtype == "float32" else f"mixed_{setting.dtype}"
    net = Network(setting.widths, device=device, dtype=dtype)
    trainer = Trainer(net, Adam(1e-4), batch_size=setting.batch, complement_weight=complement_weight)
    with nullcontext() if graph else mock.patch.object(cuda_kernels, "captured", lambda step: step):
        history = trainer.fit(*_data(setting), epochs=EPOCHS)
    return float(np.median([record.seconds for record in history.epochs[1:]])) / setting.batches


def _products(device: Device, setting: Setting) -> float:
    """The matrix products of a step, one after the other: forward, of the weights, and of the inputs but the first."""
    kernels, dtype = kernels_for(device), named_dtype(setting.dtype)
    layers = []
    for inputs, units in zip(setting.widths, setting.widths[1:], strict=False):
        shapes = (setting.batch, inputs), (inputs, units), (setting.batch, units)
        x, w, z = (device.zeros(shape, dtype) for shape in shapes)
        layers.append((x, w, z, device.zeros((inputs, units), np.float32)))

    def run() -> None:
        for x, w, z, _ in layers:
            kernels.matmul(x, w, z)
        for i, (x, w, z, dw) in enumerate(layers):
            kernels.matmul(x.T, z, dw)
            if i:
                kernels.matmul(z, w.T, x)

    def epoch() -> float:
        device.xp.cuda.Device(device.index).synchronize()
        began = time.perf_counter()
        for _ in range(setting.batches):
            step()
        device.xp.cuda.Device(device.index).synchronize()
        return time.perf_counter() - began

    with device.active():
        step = kernels.captured(run)
        return float(np.median([epoch() for _ in range(EPOCHS)][1:])) / setting.batches


def _torch_step(setting: Setting, compiled: bool) -> float:
    import torch

    layers: list[Any] = []
    for inputs, units in zip(setting.widths, setting.widths[1:], strict=False):
        layers += [torch.nn.Linear(inputs, units), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1]).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True, capturable=True)
    x, y = (torch.from_numpy(array).cuda() for array in _data(setting))
    half = setting.dtype != "float32"

    def loss_of(x: Any, y: Any) -> Any:
        with torch.autocast("cuda", dtype=getattr(torch, setting.dtype)) if half else nullcontext():
            return torch.nn.functional.cross_entropy(model(x), y)

    loss_function = torch.compile(loss_of, mode="reduce-overhead") if compiled else loss_of

    def epoch() -> float:
        torch.cuda.synchronize()
        began = time.perf_counter()
        order = torch.randperm(len(x), device="cuda")
        for rows in order.split(setting.batch):
            optimizer.zero_grad(set_to_none=True)
            loss_function(x[rows], y[rows]).backward()
            optimizer.step()
        torch.cuda.synchronize()
        return time.perf_counter() - began

    return float(np.median([epoch() for _ in range(EPOCHS)][1:])) / setting.batches
