"""gpu_nn.torch on the CPU beside the compositions that people write in PyTorch: `speed` and `training`."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.torch import COPY
from gpu_nn.data import digits
from gpu_nn.torch import softmax_cross_entropy

Cost = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def log1p_of_minus_p(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """-Σ y log p + (1-y) log1p(-p), the mean over the rows. target: one-hot, of the type of the logits."""
    log_p = functional.log_softmax(logits, 1)
    return -(target * log_p + (1 - target) * torch.log1p(-log_p.exp())).sum(1).mean()


def log_of_minus_expm1(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """-Σ y log p + (1-y) log(-expm1(log p)), the mean over the rows."""
    log_p = functional.log_softmax(logits, 1)
    return -(target * log_p + (1 - target) * torch.log(-torch.expm1(log_p))).sum(1).mean()


COMPOSITIONS: dict[str, Cost] = {"log1p(-p)": log1p_of_minus_p, "log(-expm1(log p))": log_of_minus_expm1}


def costs(labels: torch.Tensor, m: int) -> dict[str, tuple[Cost, torch.Tensor]]:
    """Each cost with the form of the target that suits it best."""
    one_hot = functional.one_hot(labels, m).float()
    return {"gpu_nn": (softmax_cross_entropy, labels)} | {
        name: (composition, one_hot) for name, composition in COMPOSITIONS.items()
    }


def speed(n: int, m: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of forward and backward, and of a copy of the logits, by turns; of each with one thread or with all,
    whichever is faster."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, m, generator=generator)
    labels = torch.randint(m, (n,), generator=generator)
    copied = torch.empty_like(logits)

    def run_of(cost: Cost, target: torch.Tensor) -> Callable[[], object]:
        def run() -> None:
            z = logits.detach().requires_grad_()
            cost(z, target).backward()

        return run

    runs = {name: run_of(*peer) for name, peer in costs(labels, m).items()}
    runs[COPY] = lambda: copied.copy_(logits)
    repeats = max(1, 200_000 // (n * m))
    all_threads = torch.get_num_threads()
    seconds: dict[str, np.ndarray] = {}
    for threads in (1, all_threads):
        torch.set_num_threads(threads)
        times: dict[str, list[float]] = {name: [] for name in runs}
        for turn in range(rounds + 1):
            for name, run in runs.items():
                began = time.perf_counter()
                for _ in range(repeats):
                    run()
                if turn:  # the first is the warm-up
                    times[name].append((time.perf_counter() - began) / repeats)
        for name, taken in times.items():
            if name not in seconds or np.median(taken) < np.median(seconds[name]):
                seconds[name] = np.array(taken)
    ours = np.median(seconds["gpu_nn"])
    return {
        "rows": n,
        "classes": m,
        "ratio": min(float(np.median(seconds[name]) / ours) for name in COMPOSITIONS),
        "milliseconds": {
            name: dict(zip(("low", "median", "high"), (np.percentile(taken, (10, 50, 90)) * 1e3).tolist(), strict=True))
            for name, taken in seconds.items()
        },
    }


def training(name: str, steps: int, seed: int = 0) -> dict[str, Any]:
    """A training script with the cost of that name, up to its first step with a loss or weight that is not finite."""
    generator = torch.Generator().manual_seed(seed)
    x, y = digits()
    inputs, labels = torch.from_numpy(x / 16).float(), torch.from_numpy(y).long()
    cost, target = costs(labels, 10)[name]
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    loss = torch.zeros(())
    for step in range(1, steps + 1):
        rows = torch.randint(len(inputs), (128,), generator=generator)
        optimizer.zero_grad()
        loss = cost(model(inputs[rows]), target[rows])
        loss.backward()
        optimizer.step()
        finite = loss.isfinite() and all(bool(p.isfinite().all()) for p in model.parameters())
        if not finite:
            return {"cost": name, "steps": steps, "not_finite_at": step}
    with torch.no_grad():
        accuracy = (model(inputs).argmax(1) == labels).float().mean()
    return {"cost": name, "steps": steps, "not_finite_at": None, "loss": loss.item(), "accuracy": accuracy.item()}
