"""One fit or partial_fit: from validated rows to the trained network and its state."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from gpu_nn.device import CPU, Array, resolve_device
from gpu_nn.estimator._early_stopping import (
    SEED_LIMIT,
    EpochEnd,
    FitMetrics,
    WeightedEvaluation,
    held_out_score,
    resumed_split_seed,
)
from gpu_nn.estimator._labels import LabelEncoder
from gpu_nn.estimator._parameters import Parameters
from gpu_nn.estimator._pickling import FitState, from_host, to_host
from gpu_nn.estimator._validation import Rows, array_device, to_device
from gpu_nn.network import Network
from gpu_nn.optimizers import OPTIMIZERS
from gpu_nn.precision import precision
from gpu_nn.training import History, Trainer
from gpu_nn.training.checkpoint import Checkpoint
from gpu_nn.training.state import TooFewEpochs

# Rows at a time for float64 sums over float32 inputs.
_CHUNK_ROWS = 65536

# A standard deviation below this share of the mean, in float64, is the rounding of a constant column.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Fitted:
    """What a fit has trained. n_iter: epochs of this fit. history: of all fits that it continues."""

    net: Network
    state: FitState
    history: History
    n_iter: int


def fit(
    parameters: Parameters,
    rows: Rows,
    validation: Rows | None,
    labels: LabelEncoder,
    classifier_of: Callable[[Network], Any],
    *,
    feature_names: Sequence[str] | None,
    previous: Fitted | None,
    incremental: bool,
    checkpoint: Checkpoint | None,
) -> Fitted:
    """Train a new network on the rows, or the `previous` one.

    classifier_of: as for `held_out_score`. incremental: train one epoch with the previous optimizer, for partial_fit.
    Raises and warns as `MLPClassifier.fit` does.
    """
    seeds = check_random_state(parameters.random_state).randint(SEED_LIMIT, size=3)
    network_seed, shuffle_seed, split_seed = map(int, seeds)
    training = replace(rows, weight=labels.class_weights(parameters.class_weight, rows.targets, rows.weight))
    splits = parameters.early_stopping and validation is None
    if splits:
        if checkpoint is not None:
            split_seed = resumed_split_seed(checkpoint, parameters.random_state, split_seed)
        split = _train_validation_split(rows.targets, parameters.validation_fraction, split_seed)
        train, held_out = map(array_device(rows.x).asarray, split)
        # class_weight weights the training rows alone.
        training, validation = training.subset(train), rows.subset(held_out)
        if validation.weight is not None and not bool(validation.weight.sum() > 0):
            raise ValueError(
                "sample_weight is zero on all rows that early_stopping holds out; raise validation_fraction, choose "
                "another random_state, or pass validation=(X, y)"
            )
    mean_weight = 1.0 if training.weight is None else float(training.weight.mean())
    if not mean_weight > 0:
        raise ValueError("the weights of all rows (sample_weight times class_weight) are zero; expected one above 0")
    decay = parameters.weight_decay(len(training.x), mean_weight)
    old_state = None
    if previous is None:
        net = _new_network(parameters, labels, rows, feature_names, network_seed)
        if parameters.standardize:
            _set_standardization(net, training.x, training.weight)
    else:
        net, old_state = _continued_network(parameters, labels, previous)
    state = _fit_state(parameters, decay, shuffle_seed, old_state, incremental)
    end = EpochEnd(
        parameters,
        state.metrics,
        len(training.x),
        0.0 if state.solver == "adamw" else decay,
        None if validation is None else held_out_score(parameters, labels, validation, classifier_of),
        split_seed if splits else None,
    )
    trainer = Trainer(
        net,
        state.optimizer,
        batch_size=parameters.batch_rows(len(training.x)),
        shuffle=bool(parameters.shuffle),
        seed=state.random,
        callbacks=[end, *parameters.callback_list()],
        complement_weight=float(parameters.complement_weight),
        label_smoothing=float(parameters.label_smoothing),
    )
    if validation is not None:
        weight = to_device(validation.weight, net.device)
        trainer.evaluation = WeightedEvaluation(net, trainer.cost_options, trainer.communicator, labels, weight)
    if previous is not None:
        trainer.history = History(list(previous.history.epochs))
    _train(trainer, end, training, validation, 1 if incremental else int(parameters.max_iter), incremental, checkpoint)
    return Fitted(net, state, trainer.history, end.epochs)


def _train_validation_split(targets: Array, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training and the held-out rows, stratified by class index where the counts allow it.

    Raises ValueError where either would have too few rows.
    """
    n = len(targets)
    held_out = int(np.ceil(n * fraction))
    if held_out < 2 or n - held_out < 1:
        raise ValueError(
            f"validation_fraction={fraction} of {n} rows leaves {held_out} to validate and {n - held_out} to train; "
            "early_stopping needs at least 2 and 1: choose another fraction, or pass validation=(X, y) to fit"
        )
    stratify = None
    if targets.ndim == 1:
        labels = to_device(targets, CPU)
        counts = np.bincount(labels)
        counts = counts[counts > 0]
        stratify = labels if counts.min() > 1 and len(counts) <= min(held_out, n - held_out) else None
    train, test = train_test_split(np.arange(n), test_size=held_out, random_state=seed, stratify=stratify)
    return train, test


def _new_network(
    parameters: Parameters, labels: LabelEncoder, rows: Rows, feature_names: Sequence[str] | None, seed: int
) -> Network:
    """A new network; device="auto" puts it on the GPU of the rows where they are on one."""
    device = array_device(rows.x)
    if parameters.device != "auto" or device.kind == "cpu":
        device = resolve_device(parameters.device)
    if parameters.verbose:
        print(f"training on {device}")
    layers = parameters.layers(labels.n_outputs)
    net = Network(layers, n_inputs=rows.x.shape[1], device=device, dtype=parameters.dtype, seed=seed)
    net.classes, net.feature_names = labels.names, feature_names
    net.multilabel = labels.multilabel(float(parameters.complement_weight))
    return net


def _continued_network(parameters: Parameters, labels: LabelEncoder, previous: Fitted) -> tuple[Network, FitState]:
    """The previous network and state, copied to another device where `parameters` ask for one.

    Raises ValueError where the parameters describe another network.
    """
    net, state = previous.net, previous.state
    device = net.device if parameters.device == "auto" else resolve_device(parameters.device)
    asked = precision(parameters.dtype, device)
    if device.name != net.device.name:
        net, state = from_host(*to_host(net, state), device)
    layers = parameters.layers(labels.n_outputs)
    if tuple(layers) != net.layers or asked != net.precision:
        raise ValueError(
            f"the parameters describe the layers {layers} of {asked.name}, but the fitted network has "
            f"{list(net.layers)} of {net.precision.name}; warm_start and partial_fit go on with the same ones: "
            "put them back, or fit with warm_start=False"
        )
    net.multilabel = labels.multilabel(float(parameters.complement_weight))
    return net, state


def _set_standardization(net: Network, x: Array, weight: Array | None) -> None:
    """Set the first layer to the columns' mean and standard deviation over x, rows weighted by `weight`.

    x and weight are on one device. A constant column is only shifted.
    """
    device = array_device(x)
    xp = device.xp
    with device.active():
        weight = xp.ones(len(x)) if weight is None else weight
        total = weight.sum()
        chunks = [slice(start, start + _CHUNK_ROWS) for start in range(0, len(x), _CHUNK_ROWS)]
        # Two passes: the squares of the deviations keep the digits of a column far from 0.
        shift = sum(weight[c] @ x[c].astype(np.float64) for c in chunks) / total
        deviation = xp.sqrt(sum(weight[c] @ (x[c].astype(np.float64) - shift) ** 2 for c in chunks) / total)
        constant = deviation <= _ROUNDING * abs(shift)
        scale = 1 / xp.where(constant, 1, deviation)
    for name, values in (("0.shift", shift), ("0.scale", scale)):
        net.state[name][...] = net.device.asarray(to_device(values, net.device), net.dtype)


def _fit_state(
    parameters: Parameters, decay: float, seed: int, previous: FitState | None, incremental: bool
) -> FitState:
    """The previous state for partial_fit; else a new one, for warm_start with the previous learning curves."""
    if previous is not None and incremental:
        previous.optimizer.weight_decay = decay
        return previous
    options = parameters.optimizer_options()
    optimizer = OPTIMIZERS[parameters.solver](lr=parameters.schedule(), weight_decay=decay, **options)
    metrics = FitMetrics()
    if previous is not None:
        old = previous.metrics
        metrics = FitMetrics(list(old.losses), list(old.scores), rows_seen=old.rows_seen)
    return FitState(parameters.solver, options, optimizer, np.random.default_rng(seed), metrics)


def _train(
    trainer: Trainer,
    end: EpochEnd,
    training: Rows,
    validation: Rows | None,
    epochs: int,
    incremental: bool,
    checkpoint: Checkpoint | None,
) -> None:
    """Train, and restore the best parameters; an interrupt ends it with a warning after the first epoch."""
    device, data = trainer.net.device, None
    if validation is not None:
        data = to_device(validation.x, device), to_device(validation.targets, device)
    try:
        trainer.fit(
            to_device(training.x, device),
            to_device(training.targets, device),
            epochs=epochs,
            validation=data,
            sample_weight=to_device(training.weight, device),
            resume=checkpoint,
        )
        if trainer.interrupted:
            raise KeyboardInterrupt
        if end.epochs == epochs and not (incremental or trainer.stopping):
            message = f"max_iter={epochs} epochs did not bring it within tol={end.parameters.tol:g}; raise max_iter"
            warnings.warn(message, ConvergenceWarning, stacklevel=5)
    except TooFewEpochs as error:
        raise TooFewEpochs("max_iter", epochs, error.least) from None
    except KeyboardInterrupt:
        if not end.epochs:
            raise
        warnings.warn("training was interrupted; the classifier keeps its weights so far", UserWarning, stacklevel=5)
    with device.active():
        end.best.restore(trainer.net)
