"""One call of fit or partial_fit, from the caller's data to the fitted attributes."""

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from gpu_nn.data.table import unique_names
from gpu_nn.device import Device, resolve_device
from gpu_nn.estimator import _parameters
from gpu_nn.estimator._early_stopping import SEED_LIMIT, EpochEnd, LabelledEvaluation, Progress
from gpu_nn.estimator._labels import Labelling
from gpu_nn.estimator._pickling import Course
from gpu_nn.estimator._scoring import score_of
from gpu_nn.estimator._split import Rows, split, split_seed_at, standardise
from gpu_nn.estimator._validation import inputs, labels, moved, place, row_weights
from gpu_nn.network import Network
from gpu_nn.optimizers import OPTIMIZERS
from gpu_nn.precision import precision
from gpu_nn.training import History, Trainer
from gpu_nn.training.checkpoint import Checkpoint
from gpu_nn.training.resume import TooFewEpochs, opened


def fit(
    estimator: Any,
    X: Any,
    y: Any,
    sample_weight: Any,
    validation: Any,
    *,
    classes: Any = None,
    incremental: bool = False,
    resume: Any = None,
) -> None:
    """Train `estimator`, an MLPClassifier, and set its fitted attributes.

    classes: of a first partial_fit. incremental: one epoch with the optimizer as it is, for partial_fit.
    resume: as of `Trainer.fit`.
    """
    _parameters.check(estimator)
    checkpoint = opened(resume, stacklevel=4)
    goes_on = estimator.__sklearn_is_fitted__() and (incremental or estimator.warm_start)
    dtype = _parameters.dtype(estimator)
    x = inputs(estimator, X, dtype=dtype, reset=not goes_on)
    at = place(x)
    y, weight = labels(y, len(x), at), row_weights(sample_weight, len(x), at)
    labelling = estimator._labelling if goes_on else Labelling.learned(y, classes)
    rows = Rows(x, moved(labelling.targets(y, dtype), at), weight, y)
    held_out = _own_validation(estimator, validation, labelling, dtype)
    network_seed, order_seed, split_seed = map(
        int, check_random_state(estimator.random_state).randint(SEED_LIMIT, size=3)
    )
    balanced = labelling.class_weights(estimator.class_weight, rows.targets, weight)
    training = Rows(rows.x, rows.targets, balanced, y)
    splits = estimator.early_stopping and held_out is None
    if splits:
        if checkpoint is not None:
            split_seed = split_seed_at(estimator, checkpoint, split_seed)
        train, test = map(at.asarray, split(rows.targets, estimator.validation_fraction, split_seed))
        # The score of the held-out rows heeds the sample weights alone.
        training, held_out = training.part(train), rows.part(test)
        if held_out.weight is not None and not bool(held_out.weight.sum() > 0):
            raise ValueError(
                "sample_weight is zero on all rows that early_stopping holds out; raise validation_fraction, choose "
                "another random_state, or pass validation=(X, y)"
            )
    mean_weight = 1.0 if training.weight is None else float(training.weight.mean())
    if not mean_weight > 0:
        raise ValueError("the weights of all rows (sample_weight times class_weight) are zero; expected one above 0")
    decay = _parameters.weight_decay(estimator, len(training.x), mean_weight)
    net = _network(estimator, labelling, at, network_seed, goes_on)
    if estimator.standardize and not goes_on:
        standardise(net, training.x, training.weight)
    course = _course(estimator, decay, order_seed, goes_on, incremental)
    epochs, history = _trained(
        estimator,
        net,
        course,
        training,
        held_out,
        labelling,
        goes_on,
        incremental,
        checkpoint,
        split_seed if splits else None,
    )
    publish(estimator, net, course, labelling, epochs, history, held_out is not None)


def _own_validation(estimator: Any, validation: Any, labelling: Labelling, dtype: np.dtype) -> Rows | None:
    if validation is None:
        return None
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise ValueError(f"validation is a {type(validation).__name__}; expected a pair (X, y)")
    x = inputs(estimator, validation[0], dtype=dtype, reset=False, name="validation X")
    y = labels(validation[1], len(x), place(x), "validation y")
    return Rows(x, moved(labelling.targets(y, dtype, "validation y"), place(x)), None, y)


def _network(estimator: Any, labelling: Labelling, at: Device, seed: int, goes_on: bool) -> Network:
    """A new network, or the fitted one when that goes on, on the device that the parameters ask for.

    Raises ValueError when the parameters describe another network than the fitted one.
    """
    layers = _parameters.layers(estimator, labelling.n_outputs)
    several = labelling.multilabel(float(estimator.complement_weight))
    if not goes_on:
        device = at if estimator.device == "auto" and at.kind != "cpu" else resolve_device(estimator.device)
        if estimator.verbose:
            print(f"training on {device}")
        net = Network(layers, n_inputs=estimator.n_features_in_, device=device, dtype=estimator.dtype, seed=seed)
        net.classes, net.multilabel = labelling.names, several
        net.feature_names = unique_names(getattr(estimator, "feature_names_in_", ())) or None
        return net
    net = estimator.net_
    device = net.device if estimator.device == "auto" else resolve_device(estimator.device)
    asked = precision(estimator.dtype, device)
    if device.name != net.device.name:
        # Out of the one device into the other, the way of a pickle.
        estimator.__setstate__(estimator.__getstate__())
        net = estimator.net_
    if tuple(layers) != net.layers or asked != net.precision:
        raise ValueError(
            f"the parameters describe the layers {layers} of {asked.name}, but the fitted network has "
            f"{list(net.layers)} of {net.precision.name}; warm_start and partial_fit go on with the same ones: "
            "put them back, or fit with warm_start=False"
        )
    net.multilabel = several
    return net


def _course(estimator: Any, decay: float, seed: int, goes_on: bool, incremental: bool) -> Course:
    """The fitted course for partial_fit; else a new one, after warm_start with the curves so far."""
    if goes_on and incremental:
        course = estimator._course
        course.optimizer.weight_decay = decay
        return course
    options = _parameters.optimizer_options(estimator)
    optimizer = OPTIMIZERS[estimator.solver](lr=_parameters.schedule(estimator), weight_decay=decay, **options)
    progress = Progress()
    if goes_on:
        before = estimator._course.progress
        progress = Progress(list(before.losses), list(before.scores), rows_seen=before.rows_seen)
    return Course(estimator.solver, options, optimizer, np.random.default_rng(seed), progress)


def _trained(
    estimator: Any,
    net: Network,
    course: Course,
    training: Rows,
    held_out: Rows | None,
    labelling: Labelling,
    goes_on: bool,
    incremental: bool,
    checkpoint: Checkpoint | None,
    split_seed: int | None,
) -> tuple[int, History]:
    """Train `net`; returns how many epochs it was, and the history of all."""
    optimizer, n, device = course.optimizer, len(training.x), net.device
    score = None
    if held_out is not None:
        score = score_of(estimator, labelling, held_out.x, held_out.y, held_out.weight)
    decay = 0.0 if course.solver == "adamw" else optimizer.weight_decay
    end = EpochEnd(estimator, course.progress, n, decay, score, split_seed)
    trainer = Trainer(
        net,
        optimizer,
        batch_size=_parameters.batch_rows(estimator, n),
        shuffle=bool(estimator.shuffle),
        seed=course.random,
        callbacks=[end, *_parameters.callbacks(estimator)],
        complement_weight=float(estimator.complement_weight),
        label_smoothing=float(estimator.label_smoothing),
    )
    validation = None
    if held_out is not None:
        validation = moved(held_out.x, device), moved(held_out.targets, device)
        weight = moved(held_out.weight, device)
        trainer.evaluation = LabelledEvaluation(net, trainer.options, trainer.ranks, labelling, weight)
    if goes_on:
        trainer.history = History(list(estimator.history_.epochs))
    epochs = 1 if incremental else int(estimator.max_iter)
    try:
        trainer.fit(
            moved(training.x, device),
            moved(training.targets, device),
            epochs=epochs,
            validation=validation,
            sample_weight=moved(training.weight, device),
            resume=checkpoint,
        )
        if trainer.interrupted:
            raise KeyboardInterrupt
        if end.epochs == epochs and not (incremental or trainer.stopping):
            said = f"max_iter={epochs} epochs did not bring it within tol={estimator.tol:g}; raise max_iter"
            warnings.warn(said, ConvergenceWarning, stacklevel=4)
    except TooFewEpochs as error:
        raise TooFewEpochs("max_iter", epochs, error.least) from None
    except KeyboardInterrupt:
        if not end.epochs:
            raise
        warnings.warn("training was interrupted; the classifier is as far as it came", UserWarning, stacklevel=4)
    with net.device.active():
        end.best.restore(net)
    return end.epochs, trainer.history


def publish(
    estimator: Any, net: Network, course: Course, labelling: Labelling, epochs: int, history: History, scored: bool
) -> None:
    """Set the fitted attributes, all at once, when nothing can fail any more."""
    progress, by_score = course.progress, bool(estimator.early_stopping)
    estimator.net_, estimator._course, estimator._labelling = net, course, labelling
    estimator.classes_, estimator.history_ = labelling.classes, history
    estimator.n_iter_, estimator.t_ = epochs, progress.rows_seen
    estimator.n_layers_ = len(_parameters.hidden_sizes(estimator)) + 2
    estimator.n_outputs_, estimator.out_activation_ = net.n_classes, "softmax"
    estimator.loss_, estimator.loss_curve_ = progress.losses[-1], list(progress.losses)
    estimator.best_loss_ = None if by_score else progress.best_loss
    estimator.validation_scores_ = list(progress.scores) if scored else None
    estimator.best_validation_score_ = progress.best_score if scored else None
