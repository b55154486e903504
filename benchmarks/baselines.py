"""The libraries that gpu_nn is measured beside: which are installed, and how many threads they use."""

import os
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

# On the CPU: the name of each in tables and of its package, and the module to import.
BASELINES = {"scikit-learn": "sklearn", "torch": "torch", "jax": "jax", "thinc": "thinc"}
THREADS = 2
TORCH_DEVICE = "cuda"  # of PyTorch in the benchmark of the GPU


@cache
def present(name: str) -> bool:
    return find_spec(BASELINES[name]) is not None


def versions(packages: Iterable[str] = ("numpy", *BASELINES)) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def use_threads(count: int = THREADS) -> dict[str, Any]:
    """Limit this process to `count` cores, which limits jax too, and BLAS and torch to as many threads."""
    from threadpoolctl import threadpool_info, threadpool_limits

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    threadpool_limits(count)
    if present("torch"):
        import torch

        torch.set_num_threads(count)
    pools = {f"{pool['internal_api']} {pool['version']}": pool["num_threads"] for pool in threadpool_info()}
    return {"threads": count, "pools": pools}


@cache
def why_not_compiled() -> str | None:
    """None where torch.compile works, otherwise why it does not."""
    if not present("torch"):
        return "torch is absent"
    import torch

    try:
        torch.compile(lambda x: x * 2 + 1)(torch.ones(8))
    except Exception as error:  # whatever a missing or foreign compiler leads to
        return f"torch.compile cannot compile here: {' '.join(str(error).split())[:120]}"
    return None


def absent() -> list[str]:
    """Baselines that are not measured on the CPU, and why."""
    gone = [f"{name} (not installed)" for name in BASELINES if not present(name)]
    gone.append("Liger (its kernels need a GPU: python -m benchmarks gpu runs them)")
    reason = why_not_compiled()
    return gone + ([f"torch.compile ({reason})"] if reason else [])


def why_no_torch(emulated: bool) -> str:
    """Empty where PyTorch can run on the GPU beside gpu_nn, otherwise why not."""
    if emulated:
        return "no GPU: ours is emulated"
    if not present("torch"):
        return "not installed"
    import torch

    return "" if torch.cuda.is_available() else "it sees no GPU"


def why_no_liger(emulated: bool) -> str:
    return why_no_torch(emulated) or ("" if find_spec("liger_kernel") is not None else "not installed")


def absent_on_gpu(emulated: bool) -> list[str]:
    """Baselines that are not measured on the GPU, and why."""
    reasons = {"PyTorch": why_no_torch(emulated), "Liger": why_no_liger(emulated)}
    return [f"{name} ({reason})" for name, reason in reasons.items() if reason]
