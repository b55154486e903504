"""PyTorch and Liger on the same logits as ours: loss and gradient, eager and compiled."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from benchmarks.gpu_kernels import CLASSES, Workload, named_dtype

_PEERS = {"torch": "PyTorch", "liger_kernel": "Liger"}
_COMPILED_CLASSES = (256, 1000, 4096, 32768)


def missing_peers() -> list[str]:
    """Names of the peers that are not installed."""
    return [f"{name} (not installed)" for module, name in _PEERS.items() if find_spec(module) is None]


def eager_peers(size: int, emulated: bool) -> Iterator[Workload]:
    """PyTorch's cross_entropy, and the full cost as people compose it; Liger's cross entropy."""
    if emulated or find_spec("torch") is None:
        return
    for m in CLASSES:
        for dtype in ("float32", "bfloat16"):
            yield _torch_workload("torch everyday", m, dtype, size, lambda torch: _everyday(torch))
            yield _torch_workload("torch full", m, dtype, size, lambda torch: _full(torch))
            if find_spec("liger_kernel") is not None:
                yield _torch_workload("liger everyday", m, dtype, size, lambda torch: _liger())


def compiled_peers(size: int, emulated: bool) -> Iterator[Workload]:
    """The same through torch.compile, at a few lengths: each takes many seconds to compile."""
    if emulated or find_spec("torch") is None:
        return
    for m in _COMPILED_CLASSES:
        for dtype in ("float32", "bfloat16"):
            yield _torch_workload(
                "torch.compile everyday", m, dtype, size, lambda torch: torch.compile(_everyday(torch))
            )
            yield _torch_workload("torch.compile full", m, dtype, size, lambda torch: torch.compile(_full(torch)))


def _torch_workload(name: str, m: int, dtype: str, size: int, make: Callable[[Any], Callable]) -> Workload:
    n = max(1, size // (m * named_dtype(dtype).itemsize))
    moved = 2 * n * m * named_dtype(dtype).itemsize + 12 * n
    return Workload({"kernel": name, "m": m, "n": n, "dtype": dtype}, moved, lambda: _torch_run(n, m, dtype, make))


def _torch_run(n: int, m: int, dtype: str, make: Callable[[Any], Callable]) -> Callable[[], object]:
    import torch

    cost = make(torch)
    z = torch.rand(n, m, device="cuda").mul_(10).sub_(5).to(getattr(torch, dtype)).requires_grad_()
    y = torch.arange(n, device="cuda") * 7919 % m

    def run() -> None:
        z.grad = None
        cost(z, y).backward()

    return run


def _everyday(torch: Any) -> Callable:
    return lambda z, y: torch.nn.functional.cross_entropy(z, y, reduction="sum")


def _full(torch: Any) -> Callable:
    """-Σ ln p_y + Σ_{t≠y} ln(1-p_t) by log1p(-p), in float32: finite on these logits, which are mild."""

    def cost(z: Any, y: Any) -> Any:
        log_p = torch.log_softmax(z.float(), dim=1)
        rest = torch.log1p(-log_p.exp())
        return -(log_p - rest).gather(1, y[:, None]).sum() - rest.sum()

    return cost


def _liger() -> Callable:
    from liger_kernel.transformers import LigerCrossEntropyLoss

    cost: Callable = LigerCrossEntropyLoss(reduction="sum")
    return cost
