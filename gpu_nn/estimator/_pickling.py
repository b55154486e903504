"""The state of a fit, and its pickle: NumPy arrays, which open where there is no GPU."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_nn.device import CPU, Device, resolve_device
from gpu_nn.errors import DeviceError
from gpu_nn.estimator._early_stopping import FitMetrics
from gpu_nn.network import Network
from gpu_nn.optimizers import OPTIMIZERS, Optimizer
from gpu_nn.precision import parameter_dtype, precision


@dataclass
class FitState:
    """The state that partial_fit continues. options: the optimizer's keyword arguments except lr and weight_decay."""

    solver: str
    options: dict[str, Any]
    optimizer: Optimizer
    random: np.random.Generator
    metrics: FitMetrics


def to_host(net: Network, state: FitState) -> tuple[dict[str, Any], dict[str, Any]]:
    """Network and state as dictionaries that hold NumPy arrays."""
    network = {
        "layers": net.layers,
        "n_inputs": net.n_inputs,
        "dtype": net.precision.name,
        "classes": net.classes,
        "several_labels": net.multilabel,
        "feature_names": net.feature_names,
        "arrays": _host_arrays(net.device, {**net.parameters, **net.state}),
    }
    fit_state = {
        "solver": state.solver,
        "options": state.options,
        "lr": state.optimizer.schedule,
        "weight_decay": state.optimizer.weight_decay,
        "steps": state.optimizer.steps,
        "arrays": _host_arrays(net.device, state.optimizer.state),
        "random": state.random,
        "metrics": state.metrics,
    }
    return network, fit_state


def from_host(network: dict[str, Any], fit_state: dict[str, Any], device: str | Device) -> tuple[Network, FitState]:
    """Network and state on `device` from what `to_host` returned.

    Where there is no such GPU they open on the CPU, and where the device does not compute in the network's precision
    in the dtype of its parameters; each with a UserWarning.
    """
    try:
        device = resolve_device(device)
    except DeviceError as error:
        warnings.warn(f"the classifier opens on the CPU: {error}", UserWarning, stacklevel=3)
        device = CPU
    try:
        dtype = precision(network["dtype"], device).name
    except DeviceError as error:
        dtype = parameter_dtype(network["dtype"]).name
        warnings.warn(f"the classifier opens in {dtype}: {error}", UserWarning, stacklevel=3)
    net = Network(network["layers"], n_inputs=network["n_inputs"], dtype=dtype, device=device)
    net.classes, net.feature_names = network["classes"], network.get("feature_names")
    net.multilabel = network["several_labels"]
    for name, array in {**net.parameters, **net.state}.items():
        array[...] = net.device.asarray(network["arrays"][name])
    solver, options = fit_state["solver"], fit_state["options"]
    optimizer = OPTIMIZERS[solver](lr=fit_state["lr"], weight_decay=fit_state["weight_decay"], **options)
    optimizer.load_state(fit_state["steps"], fit_state["arrays"], net)
    return net, FitState(solver, options, optimizer, fit_state["random"], fit_state["metrics"])


def _host_arrays(device: Device, arrays: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.array(device.to_host(array)) for name, array in arrays.items()}
