"""The network, the optimizer and the trainer with its callbacks that a run's settings name."""

import argparse
from pathlib import Path
from typing import Any

from gpu_nn.cli.last_state import LastState
from gpu_nn.cli.parts import Parts
from gpu_nn.cli.run_folder import RunFolder
from gpu_nn.cli.schedule import schedule_of
from gpu_nn.distributed.communicator import SINGLE_PROCESS, Communicator
from gpu_nn.layers import Dense, InputNoise, Layer, Standardize, hidden_layers
from gpu_nn.network import Network
from gpu_nn.optimizers import OPTIMIZERS, Optimizer
from gpu_nn.training import (
    Callback,
    Checkpoints,
    CsvLog,
    EarlyStopping,
    JsonLinesLog,
    TensorBoardLog,
    Trainer,
)


def network(settings: argparse.Namespace, data: Parts) -> Network:
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


def optimizer(settings: argparse.Namespace, data: Parts) -> Optimizer:
    chosen: dict[str, Any] = {"max_norm": settings.max_norm, "lr": schedule_of(settings, data.rows[0])}
    if settings.weight_decay is not None:
        chosen["weight_decay"] = settings.weight_decay
    if settings.optimizer == "sgd":
        chosen["momentum"] = 0.9
    return OPTIMIZERS[settings.optimizer](**chosen)


def trainer(
    net: Network, optimizer: Optimizer, settings: argparse.Namespace, communicator: Communicator = SINGLE_PROCESS
) -> Trainer:
    """It has no callbacks yet."""
    return Trainer(
        net,
        optimizer,
        batch_size=settings.batch_size,
        seed=settings.seed,
        label_smoothing=settings.label_smoothing,
        complement_weight=settings.complement_weight,
        communicator=communicator,
    )


def callbacks(settings: argparse.Namespace, folder: RunFolder | None) -> list[Callback]:
    """Raises ValueError for logs of a kind that is not installed."""
    named: list[Callback] = []
    if settings.early_stopping is not None:
        named.append(EarlyStopping(patience=settings.early_stopping))
    for path in settings.log or ():
        named.append(CsvLog(path) if Path(path).suffix == ".csv" else JsonLinesLog(path))
    if settings.tensorboard is not None:
        try:
            named.append(TensorBoardLog(settings.tensorboard))
        except ImportError as error:
            raise ValueError(f"--tensorboard: {error}") from None
    if folder is not None:
        named.append(Checkpoints(folder.checkpoints.path, settings.checkpoint_every))
        named.append(LastState(folder.checkpoints.last_state, settings.epochs))
    return named
