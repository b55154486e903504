"""The network, the optimizer and the cost that a run's settings name."""

import argparse
from typing import Any

from gpu_nn.cli.parts import Parts
from gpu_nn.cli.schedule import schedule_of
from gpu_nn.layers import Dense, InputNoise, Layer, Standardize, hidden_layers
from gpu_nn.network import Network
from gpu_nn.optimizers import OPTIMIZERS, Optimizer


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


def cost(settings: argparse.Namespace) -> dict[str, Any]:
    """The cost's options, by the names that `Trainer` has for them."""
    return {"label_smoothing": settings.label_smoothing, "complement_weight": settings.complement_weight}
