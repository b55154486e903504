"""python -m benchmarks torch: gpu_nn.torch on the CPU beside the compositions that people write in PyTorch.

Speed: loss and gradient of the full cost, forward and backward, by turns in one process. Training: one script, one
seed, a small network on the handwritten digits with Adam; only the cost differs.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks.results import machine, table, write
from gpu_nn.data import digits
from gpu_nn.torch import softmax_cross_entropy

# Rows and classes; the goal holds for the last.
SHAPES = ((128, 10), (65536, 64), (4096, 1000))
GOAL = 1.0  # times the speed of the faster composition
ROUNDS = 15
STEPS = 1500

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


def speed(n: int, m: int) -> dict[str, Any]:
    """Milliseconds of forward and backward."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, m, generator=generator)
    labels = torch.randint(m, (n,), generator=generator)
    repeats = max(1, 20_000 // (n * m))
    seconds: dict[str, list[float]] = {name: [] for name in costs(labels, m)}
    for turn in range(ROUNDS + 1):
        for name, (cost, target) in costs(labels, m).items():
            began = time.perf_counter()
            for _ in range(repeats):
                z = logits.detach().requires_grad_()
                cost(z, target).backward()
            if turn:  # the first is the warm-up
                seconds[name].append((time.perf_counter() - began) / repeats)
    ours = np.array(seconds["gpu_nn"])
    return {
        "rows": n,
        "classes": m,
        "ratio": min(float(np.median(np.array(seconds[name]) / ours)) for name in COMPOSITIONS),
        "milliseconds": {
            name: dict(zip(("low", "median", "high"), (np.percentile(times, (10, 50, 90)) * 1e3).tolist(), strict=True))
            for name, times in seconds.items()
        },
    }


def training(name: str, steps: int = STEPS, seed: int = 0) -> dict[str, Any]:
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


def markdown(result: dict[str, Any]) -> str:
    names = list(result["speed"][0]["milliseconds"])
    head = ["rows × classes", *(f"{name if name == 'gpu_nn' else f'`{name}`'}, ms" for name in names), "times as fast"]
    lines = []
    for row in result["speed"]:
        times = [row["milliseconds"][name] for name in names]
        cells = [f"{t['median']:.3g} ({t['low']:.3g}–{t['high']:.3g})" for t in times]
        lines.append([f"{row['rows']} × {row['classes']}", *cells, f"{row['ratio']:.1f}"])
    ends = []
    for run in result["training"]:
        step = run["not_finite_at"]
        ends.append(f"finite for {run['steps']} steps" if step is None else f"not finite at step {step}")
    lines.append(["training, Adam", *ends, ""])
    return table(head, lines)


def main() -> None:
    result: dict[str, Any] = {
        "machine": machine("numpy", "torch"),
        "threads": torch.get_num_threads(),
        "rounds": ROUNDS,
        "goal": GOAL,
        "speed": [speed(*shape) for shape in SHAPES],
        "training": [training(name) for name in ("gpu_nn", *COMPOSITIONS)],
    }
    write("torch", result)
    print(markdown(result))
    print(f"{result['speed'][-1]['ratio']:.2f} × the faster composition at m = {SHAPES[-1][1]}, goal {GOAL}")
