"""python -m benchmarks torch: gpu_nn.torch on the CPU beside the compositions that are written in PyTorch.

Speed: loss and gradient of the full cost, forward and backward, by turns in one process, each with the form of target
that suits it best; floor: a copy of the logits. Training: one script, one seed, a small network on the handwritten
digits with Adam; only the cost differs.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.results import machine, table, write
from benchmarks.timing import Times, cell, interleaved, percent, spread
from gpu_nn.data import digits

# Rows and classes; the goal, times the speed of the faster composition, holds for the last.
SHAPES = ((128, 10), (65536, 64), (4096, 1000))
GOAL = 1.0
ROUNDS = 15
STEPS = 1500
COPY = "copy"  # of the logits: read once and written once, the least that a gradient costs
COMPOSITIONS = ("log1p(-p)", "log(-expm1(log p))")

Cost = Callable[[Any, Any], Any]


def costs(labels: Any, m: int) -> dict[str, tuple[Cost, Any]]:
    """Each cost, the mean over the rows, with the form of the target that suits it best."""
    import torch
    from torch.nn import functional

    from gpu_nn.torch import softmax_cross_entropy

    def log1p_of_minus_p(logits: Any, target: Any) -> Any:
        log_p = functional.log_softmax(logits, 1)
        return -(target * log_p + (1 - target) * torch.log1p(-log_p.exp())).sum(1).mean()

    def log_of_minus_expm1(logits: Any, target: Any) -> Any:
        log_p = functional.log_softmax(logits, 1)
        return -(target * log_p + (1 - target) * torch.log(-torch.expm1(log_p))).sum(1).mean()

    one_hot = functional.one_hot(labels, m).float()
    compositions = zip(COMPOSITIONS, (log1p_of_minus_p, log_of_minus_expm1), strict=True)
    return {"gpu_nn": (softmax_cross_entropy, labels)} | {name: (cost, one_hot) for name, cost in compositions}


def speed(n: int, m: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of forward and backward, and of a copy of the logits, by turns; of each with one thread or with all,
    whichever is faster."""
    import torch

    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, m, generator=generator)
    labels = torch.randint(m, (n,), generator=generator)
    copied = torch.empty_like(logits)

    def run_of(cost: Cost, target: Any) -> Callable[[], object]:
        def run() -> None:
            z = logits.detach().requires_grad_()
            cost(z, target).backward()

        return run

    runs = {name: run_of(*cost) for name, cost in costs(labels, m).items()}
    runs[COPY] = lambda: copied.copy_(logits)
    seconds: Times = {}
    for threads in (1, torch.get_num_threads()):
        torch.set_num_threads(threads)
        times = interleaved(runs, rounds, repeats=max(1, 200_000 // (n * m)), rest=0)
        seconds = {name: min(seconds.get(name, taken), taken, key=np.median) for name, taken in times.items()}
    ours = np.median(seconds["gpu_nn"])
    return {
        "rows": n,
        "classes": m,
        "ratio": min(float(np.median(seconds[name]) / ours) for name in COMPOSITIONS),
        "milliseconds": {name: spread(taken, 1e3) for name, taken in seconds.items()},
    }


def training(name: str, steps: int, seed: int = 0) -> dict[str, Any]:
    """A training script with the cost of that name, up to the first loss or weight that is not finite."""
    import torch

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
        if not all(bool(values.isfinite().all()) for values in (loss, *model.parameters())):
            return {"cost": name, "steps": steps, "not_finite_at": step}
    with torch.no_grad():
        accuracy = (model(inputs).argmax(1) == labels).float().mean()
    return {"cost": name, "steps": steps, "not_finite_at": None, "loss": loss.item(), "accuracy": accuracy.item()}


def markdown(result: dict[str, Any]) -> str:
    names = [name for name in result["speed"][0]["milliseconds"] if name != COPY]
    head = ["rows × classes", *(f"{name if name == 'gpu_nn' else f'`{name}`'}, ms" for name in names), "times as fast"]
    head += ["copying the logits, ms", "our share"]
    lines = []
    for row in result["speed"]:
        times = row["milliseconds"]
        floor = ["not measured", ""]
        if COPY in times:
            floor = [cell(times[COPY]), percent(times[COPY]["median"] / times["gpu_nn"]["median"])]
        cells = [cell(times[name]) for name in names]
        lines.append([f"{row['rows']} × {row['classes']}", *cells, f"{row['ratio']:.1f}", *floor])
    ends = []
    for run in result["training"]:
        step = run["not_finite_at"]
        ends.append(f"finite for {run['steps']} steps" if step is None else f"not finite at step {step}")
    lines.append(["training, Adam", *ends, "", "", ""])
    return table(head, lines)


def main() -> None:
    import torch

    result: dict[str, Any] = {
        "machine": machine("numpy", "torch"),
        "threads": torch.get_num_threads(),
        "rounds": ROUNDS,
        "goal": GOAL,
        "speed": [speed(*shape, ROUNDS) for shape in SHAPES],
        "training": [training(name, STEPS) for name in ("gpu_nn", *COMPOSITIONS)],
    }
    write("torch", result)
    print(markdown(result))
    print(f"{result['speed'][-1]['ratio']:.2f} × the faster composition at m = {SHAPES[-1][1]}, goal {GOAL}")
