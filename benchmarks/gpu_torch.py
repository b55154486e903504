"""An epoch of training on a GPU as it is written in PyTorch, eager and compiled."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks import gpu_peers


def torch_epoch(
    widths: list[int], batch: int, dtype: str, x: np.ndarray, y: np.ndarray, compiled: bool
) -> Callable[[], float]:
    """Seconds of an epoch with Adam, fused, and the everyday cross entropy; half types by autocast."""
    import torch

    where = gpu_peers.WHERE
    layers: list[Any] = []
    for inputs, units in pairwise(widths):
        layers += [torch.nn.Linear(inputs, units), torch.nn.ReLU()]
    model = torch.nn.Sequential(*layers[:-1]).to(where)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True, capturable=where == "cuda")
    rows, labels = (torch.from_numpy(array).to(where) for array in (x, y))
    half = dtype != "float32"

    def loss_of(x: Any, y: Any) -> Any:
        with torch.autocast(where, dtype=getattr(torch, dtype)) if half else nullcontext():
            return torch.nn.functional.cross_entropy(model(x), y)

    if compiled:
        torch.compiler.reset()  # code seen with other shapes would be compiled for any
    loss_function = torch.compile(loss_of, mode="reduce-overhead") if compiled else loss_of

    def epoch() -> float:
        _wait(torch)
        began = time.perf_counter()
        for chosen in torch.randperm(len(rows), device=where).split(batch):
            optimizer.zero_grad(set_to_none=True)
            loss_function(rows[chosen], labels[chosen]).backward()
            optimizer.step()
        _wait(torch)
        return time.perf_counter() - began

    return epoch


def _wait(torch: Any) -> None:
    if gpu_peers.WHERE == "cuda":
        torch.cuda.synchronize()
