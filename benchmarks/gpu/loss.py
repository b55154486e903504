"""PyTorch and Liger on the same logits as ours, and which of them are here."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

from benchmarks.gpu.kernels import NOISE_FACTOR, NOISE_MODULUS

WHERE = "cuda"  # of PyTorch
_COMPILED_CLASSES = (256, 1000, 4096, 32768)  # each takes many seconds to compile
_DTYPES = ("float32", "bfloat16")

Run = Callable[[], Any]


def why_no_torch(emulated: bool) -> str:
    """Empty where PyTorch can run beside ours, otherwise why not."""
    if emulated:
        return "no GPU: ours is emulated"
    if find_spec("torch") is None:
        return "not installed"
    import torch

    return "" if torch.cuda.is_available() else "it sees no GPU"


def why_no_liger(emulated: bool) -> str:
    return why_no_torch(emulated) or ("" if find_spec("liger_kernel") is not None else "not installed")


def absent(emulated: bool) -> list[str]:
    """Peers that are not measured, and why."""
    reasons = {"PyTorch": why_no_torch(emulated), "Liger": why_no_liger(emulated)}
    return [f"{name} ({reason})" for name, reason in reasons.items() if reason]


def takes(facts: dict[str, Any]) -> bool:
    """Whether the peers take part in a cell of the loss."""
    return facts["target"] == "index" and facts["dtype"] in _DTYPES


def compiles(facts: dict[str, Any]) -> bool:
    return takes(facts) and facts["m"] in _COMPILED_CLASSES


def runs(facts: dict[str, Any], emulated: bool, compiled: bool) -> Iterator[tuple[str, Callable[[], Run]]]:
    """Name of each peer and what makes its run: loss and gradient of the logits that ours has; a run gives the loss."""
    if why_no_torch(emulated) or not takes(facts):
        return
    import torch

    z, y = _logits(torch, facts)
    cost = _everyday(torch) if facts["cost"] == "everyday" else _full(torch)
    yield "torch eager", lambda: _run(cost, z, y)
    if facts["cost"] == "everyday" and not why_no_liger(emulated):
        yield "Liger", lambda: _run(_liger(), z, y)
    if compiled and compiles(facts):
        torch.compiler.reset()  # code seen with other shapes would be compiled for any
        yield "torch.compile", lambda: _run(torch.compile(cost), z, y)


def _logits(torch: Any, facts: dict[str, Any]) -> tuple[Any, Any]:
    n, m = facts["n"], facts["m"]
    z = (torch.arange(n * m, device=WHERE) * NOISE_FACTOR % NOISE_MODULUS).float() * (10 / NOISE_MODULUS) - 5
    z = z.reshape(n, m).to(getattr(torch, facts["dtype"])).requires_grad_()
    return z, torch.arange(n, device=WHERE) * 7919 % m


def _run(cost: Callable, z: Any, y: Any) -> Run:
    def run() -> Any:
        z.grad = None
        loss = cost(z, y)
        loss.backward()
        return loss.detach()

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
