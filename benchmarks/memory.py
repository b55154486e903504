"""Peak memory of a loss over many classes, of a training step and of predictions, each in its own process.

Shapes: LOSSES, PREDICTIONS and the networks of step.py. Baselines: scikit-learn and PyTorch. The peak is the resident
memory that the kernel counts, less what was resident before: for the loss, after its inputs were made, and less the
gradients that it returns; for the step, after the data and the library were loaded and a small network trained, so that
parameters, gradients, Adam's moments and work space count; for predictions, beyond the network, the rows and the
returned probabilities.

`python -m benchmarks.memory CASE` measures one case and prints its bytes.
"""

import json
import re
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines import present, use_threads
from benchmarks.predict import baseline_runs
from benchmarks.results import Goal, table
from benchmarks.step import NETWORKS, our_epoch, sklearn_epoch, torch_epoch
from gpu_nn import Network

# Rows, classes, inputs, and who: at the largest, whole logits are 4 GB, and torch holds several times that.
LOSSES: tuple[tuple[int, int, int, tuple[str, ...]], ...] = (
    (8192, 128_000, 256, ("gpu_nn",)),
    (2048, 32_000, 256, ("gpu_nn", "torch eager")),
)
# Network and rows.
PREDICTIONS = (("A1", 100_000), ("A2", 100_000))
STEPS = ("gpu_nn", "scikit-learn", "torch eager")
# Why a baseline takes no part in a loss.
NOT_RUN = {"scikit-learn": "has no such loss", "torch eager": "not run: whole logits"}
GOALS_ARE_UPPER_BOUNDS = True


def resident() -> int:
    """The resident bytes now; resets the peak."""
    # ru_maxrss cannot be reset, and begins with the peak of the parent process.
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak() -> int:
    """The most bytes that were resident since `resident`."""
    return status("VmHWM")


def status(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    found = re.search(rf"^{field}:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/self/status has no {field}; memory is measured on Linux only")
    return int(found[1]) * 1024


def loss_bytes(who: str, n: int, m: int, inputs: int) -> int:
    """Beyond inputs and gradients. torch: linear, cross_entropy (the standard loss) and backward."""
    random = np.random.default_rng(0)
    a = random.standard_normal((n, inputs), dtype=np.float32)
    w = random.standard_normal((inputs, m), dtype=np.float32)
    w *= inputs**-0.5  # logits N(0, 1): far below the largest, probabilities are subnormal, and slow to multiply
    b = np.zeros(m, np.float32)
    y = random.integers(0, m, n)
    outputs = a.nbytes + w.nbytes + b.nbytes
    np.dot(a[:64], w[:, :64])  # BLAS takes its buffers
    if who == "gpu_nn":
        from gpu_nn import functional as F

        F.linear_softmax_cross_entropy_with_grad(a[:2], w[:, :4].copy(), b[:4], y[:2] % 4)
        before = resident()
        F.linear_softmax_cross_entropy_with_grad(a, w, b, y)
    else:
        import torch
        from torch.nn import functional

        inputs_of_torch = [torch.from_numpy(array).requires_grad_() for array in (a, w, b)]
        labels = torch.from_numpy(y)
        small = torch.zeros(2, 4, requires_grad=True)
        functional.cross_entropy(small, labels[:2] % 4).backward()
        before = resident()
        rows, weight, bias = inputs_of_torch
        functional.cross_entropy(torch.addmm(bias, rows, weight), labels, reduction="sum").backward()
    return peak() - before - outputs


def step_bytes(who: str, name: str) -> int:
    widths, batch, _ = NETWORKS[name]
    random = np.random.default_rng(0)
    x = random.random((batch * 4, widths[0]), dtype=np.float32)
    y = random.integers(0, widths[-1], len(x))
    makers: dict[str, Any] = {
        "gpu_nn": partial(our_epoch, complement_weight=1.0),
        "scikit-learn": sklearn_epoch,
        "torch eager": torch_epoch,
    }
    makers[who]([4, 4, 2], 2, np.ones((4, 4), np.float32), np.array([0, 1, 0, 1]))()
    np.dot(x, x.T)
    before = resident()
    epoch = makers[who](widths, batch, x, y)
    for _ in range(3):
        epoch()
    return peak() - before


def prediction_bytes(who: str, name: str, rows: int) -> int:
    net = Network(NETWORKS[name][0], device="cpu")
    x = np.random.default_rng(0).random((rows, net.n_inputs), dtype=np.float32)

    def run_of(x: np.ndarray) -> Any:
        """Only that of `who`: jax would copy the rows, and later."""
        if who == "gpu_nn":
            return lambda: net.predict_proba(x)
        return next(run for name, run in baseline_runs(net, x) if name == who)

    run_of(x[:8])()
    np.dot(x[:64], x[:64].T)
    run = run_of(x)
    before = resident()
    probabilities = run()
    return peak() - before - int(np.asarray(probabilities).nbytes)


def in_a_process(case: dict[str, Any]) -> int:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", json.dumps(case)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{case} ended with {done.returncode}: {done.stderr[-500:]}")
    return int(done.stdout.split()[-1])


def here(who: str) -> bool:
    return who == "gpu_nn" or present(who.removesuffix(" eager"))


def measure(quick: bool) -> dict[str, Any]:
    losses, steps, predictions = [], [], []
    for n, m, inputs, names in ((16, 100, 8, ("gpu_nn", "torch eager")),) if quick else LOSSES:
        case: dict[str, Any] = {"n": n, "m": m, "inputs": inputs}
        found = {who: in_a_process({"who": who, **case}) for who in names if here(who)}
        losses.append({**case, "logits_bytes": 4 * n * m, "bytes": found})
    for name in ["A3"] if quick else NETWORKS:
        widths = NETWORKS[name][0]
        parameters = sum((i + 1) * o for i, o in pairwise(widths))
        found = {who: in_a_process({"who": who, "network": name}) for who in STEPS if here(who)}
        # Parameters, gradient and two moments.
        steps.append({"network": name, "parameters": parameters, "floor_bytes": 16 * parameters, "bytes": found})
    for name, rows in (("A3", 8),) if quick else PREDICTIONS:
        case = {"network": name, "rows": rows}
        found = {who: in_a_process({"who": who, **case}) for who in STEPS if here(who)}
        widest = max(NETWORKS[name][0][1:])
        predictions.append({**case, "widest_bytes": 4 * rows * widest, "bytes": found})
    return {"losses": losses, "steps": steps, "predictions": predictions}


def markdown(result: dict[str, Any]) -> str:
    lines = []
    for row in result["losses"]:
        label = f"`linear_softmax_cross_entropy_with_grad`, {row['n']} × {row['m']} × {row['inputs']}"
        asked = {shape[:3]: shape[3] for shape in LOSSES}.get((row["n"], row["m"], row["inputs"]), STEPS)
        cells = [_megabytes(row["bytes"].get(who)) if who in asked else NOT_RUN[who] for who in STEPS]
        lines.append([label, *cells, f"all logits: {_megabytes(row['logits_bytes'])}"])
    for row in result["steps"]:
        cells = [_megabytes(row["bytes"].get(who)) for who in STEPS]
        widths = "-".join(map(str, NETWORKS[row["network"]][0]))
        lines.append([f"training step, {widths}", *cells, f"Adam's four vectors: {_megabytes(row['floor_bytes'])}"])
    for row in result["predictions"]:
        cells = [_megabytes(row["bytes"].get(who)) for who in STEPS]
        label = f"probabilities of {row['rows']:,} rows, {'-'.join(map(str, NETWORKS[row['network']][0]))}"
        lines.append([label, *cells, f"the widest layer of all rows: {_megabytes(row['widest_bytes'])}"])
    return table(["peak, MB", *STEPS, "beside it"], lines)


def _megabytes(number: float | None) -> str:
    return "absent" if number is None else f"{number / 1e6:,.1f}"


def goals(result: dict[str, Any]) -> list[Goal]:
    return [
        (f"{row['n']} × {row['m']} × {row['inputs']}, GB beyond inputs and outputs", row["bytes"]["gpu_nn"] / 1e9, 1.0)
        for row in result["losses"]
    ]


def main() -> None:
    case = json.loads(sys.argv[1])
    use_threads()
    if "rows" in case:
        print(prediction_bytes(case["who"], case["network"], case["rows"]))
    else:
        print(step_bytes(case["who"], case["network"]) if "network" in case else loss_bytes(**case))


if __name__ == "__main__":
    main()
