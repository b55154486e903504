"""A fitted classifier as NumPy arrays, so that what was trained on a GPU opens where there is none."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpu_nn.device import CPU, Device, resolve_device
from gpu_nn.errors import DeviceError
from gpu_nn.estimator._early_stopping import Progress
from gpu_nn.layers import Dense
from gpu_nn.network import Network
from gpu_nn.optimizers import OPTIMIZERS, Optimizer
from gpu_nn.precision import parameter_dtype, precision


@dataclass
class Course:
    """What partial_fit goes on with. solver, options: what the optimizer was made from, but lr and weight_decay."""

    solver: str
    options: dict[str, Any]
    optimizer: Optimizer
    random: np.random.Generator
    progress: Progress


def parameters(net: Network, kind: str) -> list[np.ndarray]:
    """Copies of the dense layers' weights or biases, 0 without one, from the inputs on. kind: "weight" or "bias"."""
    copies = []
    for i, layer in enumerate(net.layers):
        if isinstance(layer, Dense):
            array = net.parameters.get(f"{i}.{kind}")
            copies.append(np.zeros(layer.units, net.dtype) if array is None else np.array(net.device.to_host(array)))
    for copy in copies:
        copy.flags.writeable = False  # a change would not reach the network
    return copies


def without_device(state: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a classifier with NumPy arrays in the place of network and optimizer."""
    if "net_" in state:
        net, course = state.pop("net_"), state.pop("_course")
        arrays = {**net.parameters, **net.state}
        state["_stored_network"] = {
            "layers": net.layers,
            "n_inputs": net.n_inputs,
            "dtype": net.precision.name,
            "classes": net.classes,
            "several_labels": net.multilabel,
            "feature_names": net.feature_names,
            "arrays": _on_host(net.device, arrays),
        }
        state["_stored_course"] = {
            "solver": course.solver,
            "options": course.options,
            "lr": course.optimizer.schedule,
            "weight_decay": course.optimizer.weight_decay,
            "steps": course.optimizer.steps,
            "arrays": _on_host(net.device, course.optimizer.state),
            "random": course.random,
            "progress": course.progress,
        }
    return state


def with_device(state: dict[str, Any]) -> dict[str, Any]:
    """The attributes again, on the device that the parameter `device` names.

    Where that is a GPU that is not there, the classifier opens on the CPU with a UserWarning; where the device does not
    compute in the network's precision, in that of its parameters, with another.
    """
    stored, course = state.pop("_stored_network", None), state.pop("_stored_course", None)
    if stored is None:
        return state
    device = _there(state["device"])
    dtype = _possible(stored["dtype"], device)
    net = Network(stored["layers"], n_inputs=stored["n_inputs"], dtype=dtype, device=device)
    net.classes, net.feature_names = stored["classes"], stored.get("feature_names")
    if "several_labels" in stored:
        net.multilabel = stored["several_labels"]
    else:
        # A pickle from before networks knew of it has it in the labelling alone.
        net.multilabel = state["_labelling"].multilabel(float(state["complement_weight"]))
    for name, array in {**net.parameters, **net.state}.items():
        array[...] = net.device.asarray(stored["arrays"][name])
    solver, options = course["solver"], course["options"]
    optimizer = OPTIMIZERS[solver](lr=course["lr"], weight_decay=course["weight_decay"], **options)
    optimizer.load_state(course["steps"], course["arrays"], net)
    state["net_"], state["_course"] = net, Course(solver, options, optimizer, course["random"], course["progress"])
    return state


def _there(name: str | Device) -> Device:
    try:
        return resolve_device(name)
    except DeviceError as error:
        warnings.warn(f"the classifier opens on the CPU: {error}", UserWarning, stacklevel=4)
        return CPU


def _possible(dtype: str, device: Device) -> str:
    try:
        return precision(dtype, device).name
    except DeviceError as error:
        there = parameter_dtype(dtype).name
        warnings.warn(f"the classifier opens in {there}: {error}", UserWarning, stacklevel=4)
        return there


def _on_host(device: Device, arrays: Any) -> dict[str, np.ndarray]:
    return {name: np.array(device.to_host(array)) for name, array in arrays.items()}
