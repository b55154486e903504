"""The libraries that ours is measured beside on the CPU: which are here, and on how many threads they work."""

import os
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

# By the name in the tables: what is imported, and the package whose version is written down.
PEERS = {
    "scikit-learn": "sklearn",
    "torch": "torch",
    "jax": "jax",
    "thinc": "thinc",
}
THREADS = 2


@cache
def present(name: str) -> bool:
    return find_spec(PEERS[name]) is not None


def versions(packages: Iterable[str] = ("numpy", *PEERS)) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def use_threads(count: int = THREADS) -> dict[str, Any]:
    """So many cores for this process, which bounds jax's threads too, and so many threads for BLAS and torch."""
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
    """Peers that are not measured, and why."""
    gone = [f"{name} (not installed)" for name in PEERS if not present(name)]
    gone.append("Liger (its kernels need a GPU: python -m benchmarks gpu runs them)")
    reason = why_not_compiled()
    return gone + ([f"torch.compile ({reason})"] if reason else [])
