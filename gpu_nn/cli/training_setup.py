"""The network, the optimizer, the trainer and the callbacks of a run, and what a dry run prints of them."""

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gpu_nn.cli.arguments import SCHEDULES
from gpu_nn.cli.input_data import DataSplits
from gpu_nn.cli.output import print_result, print_stderr, table
from gpu_nn.cli.run_folder import RunFolder
from gpu_nn.distributed.communicator import SINGLE_PROCESS, Communicator
from gpu_nn.errors import DataError
from gpu_nn.layers import Dense, InputNoise, Layer, Standardize, hidden_layers
from gpu_nn.network import Network
from gpu_nn.optimizers import OPTIMIZERS, Optimizer
from gpu_nn.schedules import Schedule, WarmUp
from gpu_nn.training import (
    Callback,
    Checkpoints,
    CsvLog,
    EarlyStopping,
    EpochRecord,
    JsonLinesLog,
    TensorBoardLog,
    Trainer,
    TrainerView,
)
from gpu_nn.training.checkpoint import write as write_checkpoint

_LABEL_DTYPE = np.dtype(np.int64)


def make_network(settings: argparse.Namespace, data: DataSplits) -> Network:
    layers: list[Layer] = [Standardize()]
    if settings.input_noise:
        layers.append(InputNoise(settings.input_noise))
    options = {"normalisation": settings.normalisation, "dropout": settings.dropout}
    net = Network(
        [*layers, *hidden_layers(settings.hidden, settings.activation, **options), Dense(len(data.classes))],
        n_inputs=data.n_inputs,
        device=settings.device,
        dtype=settings.dtype,
        seed=settings.seed,
    )
    net.classes = data.classes.tolist()
    if data.names is not None:
        net.feature_names, net.target_name = data.names, data.target
    for name, values in (("0.shift", data.shift), ("0.scale", data.scale)):
        net.state[name][...] = net.device.asarray(values, net.dtype)
    return net


def make_schedule(settings: argparse.Namespace, rows: int) -> Schedule:
    """The learning-rate schedule. rows: in the training split."""
    steps_per_epoch = -(-rows // settings.batch_size)
    # A config.toml of an early version of gpu_nn names no schedule.
    schedule = SCHEDULES[settings.schedule or "constant"](settings.lr, max(settings.epochs * steps_per_epoch, 1))
    if settings.warm_up is None:
        return schedule
    return WarmUp(settings.warm_up.steps or settings.warm_up.epochs * steps_per_epoch, schedule)


def make_optimizer(settings: argparse.Namespace, data: DataSplits) -> Optimizer:
    options: dict[str, Any] = {"max_norm": settings.max_norm, "lr": make_schedule(settings, data.rows[0])}
    if settings.weight_decay is not None:
        options["weight_decay"] = settings.weight_decay
    if settings.optimizer == "sgd":
        options["momentum"] = 0.9
    return OPTIMIZERS[settings.optimizer](**options)


def make_trainer(
    net: Network, optimizer: Optimizer, settings: argparse.Namespace, communicator: Communicator = SINGLE_PROCESS
) -> Trainer:
    """A trainer without callbacks."""
    return Trainer(
        net,
        optimizer,
        batch_size=settings.batch_size,
        seed=settings.seed,
        label_smoothing=settings.label_smoothing,
        complement_weight=settings.complement_weight,
        communicator=communicator,
    )


def make_callbacks(settings: argparse.Namespace, folder: RunFolder | None) -> list[Callback]:
    """Raises ValueError for a log that needs a package which is not installed."""
    callbacks: list[Callback] = []
    if settings.early_stopping is not None:
        callbacks.append(EarlyStopping(patience=settings.early_stopping))
    for path in settings.log or ():
        callbacks.append(CsvLog(path) if Path(path).suffix == ".csv" else JsonLinesLog(path))
    if settings.tensorboard is not None:
        try:
            callbacks.append(TensorBoardLog(settings.tensorboard))
        except ImportError as error:
            raise ValueError(f"--tensorboard: {error}") from None
    if folder is not None:
        callbacks.append(Checkpoints(folder.checkpoints.path, settings.checkpoint_every))
        callbacks.append(FinalCheckpoint(folder.checkpoints.final, settings.epochs))
    return callbacks


class FinalCheckpoint(Callback):
    """Writes the state after the last of `epochs` epochs, or after early stopping, to the file `path`: more epochs
    resume from it, while the model may be that of the best epoch.
    """

    last: ClassVar[bool] = True

    def __init__(self, path: Path, epochs: int):
        self.path, self.epochs = path, epochs

    def begin(self, trainer: TrainerView) -> None:
        # A killed process may have left the final checkpoint of an earlier attempt.
        self.path.unlink(missing_ok=True)

    def __call__(self, trainer: TrainerView, record: EpochRecord) -> None:
        if not (trainer.stopping or record.epoch == self.epochs):
            return
        try:
            write_checkpoint(self.path, *trainer.state_dict())
        except DataError as error:
            # The run is complete without it.
            print_stderr(f"{error}: this run cannot continue to more epochs")


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


def print_dry_run(
    net: Network, optimizer: Optimizer, settings: argparse.Namespace, data: DataSplits, steps_done: int, as_json: bool
) -> None:
    """Print what would be trained. steps_done: before the checkpoint from which the run would resume."""
    rows, target = data.rows, data.target
    steps = -(-rows[0] // settings.batch_size)
    memory = _memory(net, optimizer, min(settings.batch_size, rows[0]), data.rows_on_device)
    layers: list[dict[str, Any]] = []
    for i, layer in enumerate(net.layers):
        sizes = [int(np.prod(shape)) for shape in layer.parameter_shapes(net.widths[i]).values()]
        layers.append({"layer": str(layer), "outputs": net.widths[i + 1], "parameters": sum(sizes)})
    schedule = settings.schedule or "constant"
    result = {
        "dry_run": True,
        "finished": False,
        "rows": dict(zip(("training", "validation", "test"), rows, strict=True)),
        "target": target,
        "inputs": net.n_inputs,
        "classes": net.n_classes,
        "layers": layers,
        "parameters": net.flat.n_parameters,
        "batches_per_epoch": steps,
        "steps": steps * settings.epochs,
        "steps_done": steps_done,
        "device": net.device.name,
        "dtype": settings.dtype,
        "memory_bytes": memory,
        "optimizer": settings.optimizer,
        "learning_rate": settings.lr,
        "schedule": schedule,
        "warm_up": None if settings.warm_up is None else str(settings.warm_up),
        "class_weight": settings.class_weight,
    }
    lines = [(row["layer"], f"{row['outputs']:,}", f"{row['parameters']:,}") for row in layers]
    target_text = "" if target is None else f", target {target}"
    changes = [] if schedule == "constant" else [schedule]
    if settings.warm_up is not None:
        changes.append(f"warm-up of {settings.warm_up}")
    lr = f"learning rate {settings.lr:g}" + (f" ({', '.join(changes)})" if changes else "")
    done = f", of which {steps_done:,} are done" if steps_done else ""
    parts = [f"{name} {_size(size)}" for name, size in memory.items() if name != "total"]
    text = (
        f"{rows[0]:,} rows to train, {rows[1]:,} to validate, {rows[2]:,} to test, "
        f"{net.n_inputs:,} inputs, {net.n_classes:,} classes{target_text}\n\n"
        + table(("layer", "outputs", "parameters"), [*lines, ("all", "", f"{net.flat.n_parameters:,}")])
        + f"\n{settings.optimizer} with {lr} in batches of {settings.batch_size:,}: "
        f"{steps:,} batches an epoch, {steps * settings.epochs:,} in {settings.epochs:,} epochs{done}, "
        f"on {net.device}, {settings.dtype}\n"
        f"memory about {_size(memory['total'])}: {', '.join(parts)}\n"
        "nothing was trained or written\n"
    )
    print_result(as_json, result, text)


def _memory(net: Network, optimizer: Optimizer, batch: int, rows: int) -> dict[str, Any]:
    """Bytes on the network's device during training, measured with one step on a batch of zeros."""
    with net.device.active():
        xp = net.device.xp
        x = xp.zeros((batch, net.widths[net.n_preprocessing]), net.precision.compute)
        net.train_step(x, xp.zeros(batch, _LABEL_DTYPE), net.n_preprocessing)
    optimizer.step(net)
    stored, computed = (net.n_inputs * t.itemsize + _LABEL_DTYPE.itemsize for t in (net.dtype, net.precision.compute))
    memory = {
        "parameters": net.flat.nbytes,
        "gradients": net.flat_grads.nbytes,
        "optimizer": sum(array.nbytes for array in optimizer.state.values()),
        "data": rows * stored,
        "batch": batch * computed + net.plan.nbytes,
    }
    return {**memory, "total": sum(memory.values())}


def _size(size: float) -> str:
    units = ["bytes", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        del units[0]
    return f"{size:.3g} {units[0]}"
