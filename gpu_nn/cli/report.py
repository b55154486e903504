"""What `gpu-nn train` reports: its progress, the result, also in history.json, and with --dry-run what it would train.

history.json, of a finished run: "epochs": the records. "test": "loss", "accuracy" and "rows" of the test split.
"data": fingerprints of the splits, as in a checkpoint, and of the test split; early versions of gpu_nn wrote none.
"""

import argparse
import json
import math
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_nn.cli.input_data import DataSplits
from gpu_nn.cli.output import print_json, print_stderr, table, write_stdout
from gpu_nn.errors import DataError
from gpu_nn.network import Network
from gpu_nn.optimizers import Optimizer
from gpu_nn.training import Callback, EpochRecord, History, Trainer, TrainerView
from gpu_nn.training.checkpoint import Checkpoint
from gpu_nn.validation import check_json_int

_MALFORMED = (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError)
_LABEL_DTYPE = np.dtype(np.int64)


@dataclass(frozen=True)
class TestResult:
    """Mean cost and accuracy on the test split, and its rows."""

    loss: float
    accuracy: float
    rows: int


# history.json


def history_text(history: History, test: TestResult, data: dict[str, Any]) -> str:
    """The content of history.json."""
    return json.dumps({"test": asdict(test), "data": data, **json.loads(history.to_json())}, indent=1)


def read_history(path: Path) -> History:
    """The records. Raises DataError for a file that is missing or malformed."""
    try:
        return History.from_json(path.read_text())
    except _MALFORMED as error:
        raise _no_history(path, error) from None


def history_of(checkpoint: Checkpoint) -> History:
    """The records in a checkpoint. Raises DataError for malformed ones."""
    try:
        return History.from_json(json.dumps({"epochs": checkpoint.training["history"]}))
    except _MALFORMED as error:
        raise _no_history(checkpoint.path, error) from None


def steps_of(checkpoint: Checkpoint) -> int:
    """The optimizer steps before the checkpoint. Raises DataError where it has none."""
    try:
        return check_json_int("steps", checkpoint.training["position"]["steps"])
    except _MALFORMED as error:
        raise DataError(f"{checkpoint.path} has a header that makes no training: {error!r}") from None


def read_test_result(path: Path) -> TestResult | None:
    """The result on the test split; None where an early version of gpu_nn wrote none. Raises as `read_history`."""
    try:
        entry = json.loads(path.read_text()).get("test")
        if entry is None:
            return None
        test = TestResult(float(entry["loss"]), float(entry["accuracy"]), int(entry["rows"]))
        if not all(map(math.isfinite, asdict(test).values())):
            raise ValueError(f"a test of {entry}")
        return test
    except _MALFORMED as error:
        raise _no_history(path, error) from None


def read_test_fingerprint(path: Path) -> dict[str, Any] | None:
    """The fingerprint of the test split, None where there is none. Raises as `read_history`."""
    try:
        data = json.loads(path.read_text()).get("data") or {}
        return data.get("test")
    except _MALFORMED as error:
        raise _no_history(path, error) from None


def _no_history(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is no history of a run: {error!r}")


# Progress and result


def show_progress(trainer: Trainer, epochs: int, rows: int) -> AbstractContextManager[Any]:
    """A context that shows progress: a bar on a terminal, else a line for each epoch. rows: of an epoch."""
    if not sys.stderr.isatty():
        trainer.callbacks.append(lambda _, record: print_stderr(record.line()))
        return nullcontext()
    from tqdm import tqdm

    bar: Any = tqdm(total=epochs * rows, unit="rows", unit_scale=True, dynamic_ncols=True)
    trainer.on_batch_end = bar.update
    trainer.callbacks.append(_ProgressBar(bar, rows))
    context: AbstractContextManager[Any] = bar
    return context


class _ProgressBar(Callback):
    """Advances the bar to where a resumed training starts, and shows the epoch's loss."""

    def __init__(self, bar: Any, rows: int):
        self.bar, self.rows = bar, rows

    def begin(self, trainer: TrainerView) -> None:
        in_epoch = min(trainer.step_record().step * trainer.batch_size, self.rows)
        self.bar.update(len(trainer.history) * self.rows + in_epoch)

    def __call__(self, trainer: TrainerView, record: EpochRecord) -> None:
        self.bar.set_postfix_str(f"epoch {record.epoch}, loss {record.loss:.4g}")


def print_result(
    as_json: bool, device: str, test: TestResult, history: History, seconds: float, model: Path | None
) -> None:
    if as_json:
        result = {
            "test_accuracy": test.accuracy,
            "test_loss": test.loss,
            "test_rows": test.rows,
            "epochs": len(history),
            "seconds": round(seconds, 3),
            "device": device,
            "model": None if model is None else str(model),
            "history": [asdict(record) for record in history.epochs],
        }
        print_json(result)
        return
    text = f"test accuracy {100 * test.accuracy:.2f} % on {test.rows} rows, loss {test.loss:.4g}"
    text += f", {seconds:.2f} s on {device}\n"
    write_stdout(text if model is None else f"{text}model: {model}\n")


# --dry-run


def print_dry_run(
    net: Network, optimizer: Optimizer, settings: argparse.Namespace, data: DataSplits, steps_done: int, as_json: bool
) -> None:
    """Print what would be trained. steps_done: before the checkpoint from which the run would resume."""
    rows, target = data.rows, data.target
    steps = -(-rows[0] // settings.batch_size)
    memory = _memory(net, optimizer, min(settings.batch_size, rows[0]), data.rows_on_device)
    layers = _layers(net)
    if as_json:
        result = {
            "dry_run": True,
            "finished": False,
            "rows": dict(zip(("training", "validation", "test"), rows, strict=True)),
            "target": target,
            "inputs": net.n_inputs,
            "classes": net.n_classes,
            "layers": [dict(zip(("layer", "outputs", "parameters"), layer, strict=True)) for layer in layers],
            "parameters": net.flat.n_parameters,
            "batches_per_epoch": steps,
            "steps": steps * settings.epochs,
            "steps_done": steps_done,
            "device": net.device.name,
            "dtype": settings.dtype,
            "memory_bytes": memory,
            "optimizer": settings.optimizer,
            "learning_rate": settings.lr,
            "schedule": settings.schedule or "constant",
            "warm_up": None if settings.warm_up is None else str(settings.warm_up),
            "class_weight": settings.class_weight,
        }
        print_json(result)
        return
    lines = [(name, f"{outputs:,}", f"{parameters:,}") for name, outputs, parameters in layers]
    target_text = "" if target is None else f", target {target}"
    done = f", of which {steps_done:,} are done" if steps_done else ""
    sizes = [f"{name} {_size(size)}" for name, size in memory.items() if name != "total"]
    write_stdout(
        f"{rows[0]:,} rows to train, {rows[1]:,} to validate, {rows[2]:,} to test, "
        f"{net.n_inputs:,} inputs, {net.n_classes:,} classes{target_text}\n\n"
        + table(("layer", "outputs", "parameters"), [*lines, ("all", "", f"{net.flat.n_parameters:,}")])
        + f"\n{settings.optimizer} with {_learning_rate(settings)} in batches of {settings.batch_size:,}: "
        f"{steps:,} batches an epoch, {steps * settings.epochs:,} in {settings.epochs:,} epochs{done}, "
        f"on {net.device}, {settings.dtype}\n"
        f"memory about {_size(memory['total'])}: {', '.join(sizes)}\n"
        "nothing was trained or written\n"
    )


def print_dry_run_of_finished(folder: Path, epochs: int, as_json: bool) -> None:
    if as_json:
        print_json({"dry_run": True, "finished": True, "epochs": epochs})
    else:
        write_stdout(f"the run in {folder} is finished after {epochs:,} epochs: nothing would be trained\n")


def _learning_rate(settings: argparse.Namespace) -> str:
    words = [] if settings.schedule in (None, "constant") else [settings.schedule]
    if settings.warm_up is not None:
        words.append(f"warm-up of {settings.warm_up}")
    return f"learning rate {settings.lr:g}" + (f" ({', '.join(words)})" if words else "")


def _layers(net: Network) -> list[tuple[str, int, int]]:
    """Each layer as its Python expression, its outputs and its parameters."""
    layers = []
    for i, layer in enumerate(net.layers):
        sizes = [int(np.prod(shape)) for shape in layer.parameter_shapes(net.widths[i]).values()]
        layers.append((str(layer), net.widths[i + 1], sum(sizes)))
    return layers


def _memory(net: Network, optimizer: Optimizer, batch: int, rows: int) -> dict[str, Any]:
    """Bytes on the network's device during training, measured with one step on a batch of zeros."""
    with net.device.active():
        xp = net.device.xp
        x = xp.zeros((batch, net.widths[net.n_preprocessing]), net.precision.compute)
        net.train_step(x, xp.zeros(batch, _LABEL_DTYPE), net.n_preprocessing)
    optimizer.step(net)
    row, half_row = (
        net.n_inputs * dtype.itemsize + _LABEL_DTYPE.itemsize for dtype in (net.dtype, net.precision.compute)
    )
    memory = {
        "parameters": net.flat.nbytes,
        "gradients": net.flat_grads.nbytes,
        "optimizer": sum(array.nbytes for array in optimizer.state.values()),
        "data": rows * row,
        "batch": batch * half_row + net.plan.nbytes,
    }
    return {**memory, "total": sum(memory.values())}


def _size(size: float) -> str:
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    return f"{size:.3g} {units[0]}"
