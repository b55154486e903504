"""python -m benchmarks torch: gpu_nn.torch on the CPU beside the compositions that people write in PyTorch.

Speed: loss and gradient of the full cost, forward and backward, by turns in one process, each with the form of target
that suits it best. Training: one script, one seed, a small network on the handwritten digits with Adam; only the cost
differs.
"""

from typing import Any

from benchmarks.results import machine, table, write

# Rows and classes; the goal holds for the last.
SHAPES = ((128, 10), (65536, 64), (4096, 1000))
GOAL = 1.0  # times the speed of the faster composition
ROUNDS = 15
STEPS = 1500
COPY = "copy"  # of the logits: read once and written once, the least that a gradient costs


def markdown(result: dict[str, Any]) -> str:
    names = [name for name in result["speed"][0]["milliseconds"] if name != COPY]
    head = ["rows × classes", *(f"{name if name == 'gpu_nn' else f'`{name}`'}, ms" for name in names), "times as fast"]
    head += ["copying the logits, ms", "our share"]
    lines = []
    for row in result["speed"]:
        times = row["milliseconds"]
        cells = [_cell(times[name]) for name in names]
        floor = ["not measured", ""]
        if COPY in times:
            floor = [_cell(times[COPY]), f"{100 * times[COPY]['median'] / times['gpu_nn']['median']:.0f} %"]
        lines.append([f"{row['rows']} × {row['classes']}", *cells, f"{row['ratio']:.1f}", *floor])
    ends = []
    for run in result["training"]:
        step = run["not_finite_at"]
        ends.append(f"finite for {run['steps']} steps" if step is None else f"not finite at step {step}")
    lines.append(["training, Adam", *ends, "", "", ""])
    return table(head, lines)


def _cell(time: dict[str, float]) -> str:
    return f"{time['median']:.3g} ({time['low']:.3g}–{time['high']:.3g})"


def main() -> None:
    import torch

    from benchmarks.torch_peers import COMPOSITIONS, speed, training

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
