"""Makes the network, the optimizer, and the trainer with its callbacks from a run's settings."""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from gpu_nn.cli.arguments import SCHEDULES
from gpu_nn.cli.input_data import DataSplits
from gpu_nn.cli.output import print_stderr
from gpu_nn.cli.run_folder import RunFolder, check_writable
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


def check_logs(settings: argparse.Namespace, config: str | None, folder: RunFolder | None) -> None:
    """Check the paths of --log and --tensorboard before anything is written.

    config: the file of --config. folder: of the run. Raises ValueError for a log that would overwrite a file of the
    data, of the settings, of the run, or another log; DataError, which names the flag, for a path that is not writable.
    """
    used = [*_input_files(settings, config), *(() if folder is None else folder.files)]
    for path in map(Path, settings.log or ()):
        for file, description in used:
            if _is_same_file(path, file):
                raise ValueError(f"--log {path} is {description}, which it would overwrite; choose another file")
        used.append((path, "another log"))
        is_made_by_run = folder is not None and path.parent.resolve() in folder.created_folders
        if not (path.parent.exists() or is_made_by_run):
            raise _not_writable("--log", path, "No such file or directory")
        if path.is_dir():
            raise DataError(f"--log {path} is a folder; choose a file's name")
        _check_writable("--log", path, path.parent)
    if settings.tensorboard is not None:
        _check_writable("--tensorboard", Path(settings.tensorboard), Path(settings.tensorboard))


def _input_files(settings: argparse.Namespace, config: str | None) -> Iterator[tuple[Path, str]]:
    for flag, name in (("--data", settings.data), ("--target", settings.target), ("--config", config)):
        if name is not None and Path(name).is_file():
            yield Path(name), f"the file of {flag}"
        elif name is not None and flag == "--data" and Path(name).is_dir():
            yield from ((file, "a file of --data") for file in Path(name).iterdir())


def _is_same_file(one: Path, other: Path) -> bool:
    """Compares through links, and also files that do not exist yet."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return one.resolve() == other.resolve()


def _check_writable(flag: str, path: Path, folder: Path) -> None:
    try:
        check_writable(folder)
    except OSError as error:
        raise _not_writable(flag, path, error.strerror) from None


def _not_writable(flag: str, path: Path, reason: str | None) -> DataError:
    return DataError(f"{flag} {path} cannot be written: {reason}; choose another folder")
