"""The end of an epoch: scores of the held-out rows, learning curves, the best parameters, and when to stop."""

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpu_nn.device import CPU, Array
from gpu_nn.estimator._labels import LabelEncoder
from gpu_nn.estimator._parameters import EpochRate, Parameters
from gpu_nn.estimator._validation import Rows, to_device
from gpu_nn.network import Network
from gpu_nn.schedules import Schedule
from gpu_nn.training import Callback, EpochRecord, TrainerView
from gpu_nn.training.callbacks.best_weights import BestWeights
from gpu_nn.training.checkpoint import Checkpoint
from gpu_nn.training.evaluation import Evaluation
from gpu_nn.validation import FINITE, check_json_int, check_number

# The fit draws its seeds below this.
SEED_LIMIT = 2**31 - 1

# "adaptive" divides the learning rate by the first, and stops where it is not above the second, as scikit-learn does.
_ADAPTIVE_FACTOR, _ADAPTIVE_MINIMUM = 5.0, 1e-6


@dataclass
class FitMetrics:
    """The learning curves of a classifier; partial_fit and warm_start extend them.

    losses: mean cost and penalty of each epoch. scores: of the held-out rows after each epoch. best_loss, best_score:
    None before the first. rows_seen: rows times epochs. no_improvement_count: epochs since the last that was better
    by tol.
    """

    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best_loss: float | None = None
    best_score: float | None = None
    rows_seen: int = 0
    no_improvement_count: int = 0

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint, where no_improvement_count is called "waited"."""
        state = {**vars(self), "losses": np.array(self.losses, float), "scores": np.array(self.scores, float)}
        state["waited"] = state.pop("no_improvement_count")
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned. Raises ValueError or TypeError for anything else."""
        curves = {name: np.asarray(state[name]) for name in ("losses", "scores")}
        for name, curve in curves.items():
            if curve.ndim != 1 or curve.dtype != np.float64 or not np.isfinite(curve).all():
                raise ValueError(f"{name} are {curve.shape} of {curve.dtype}, or not finite")
        best_loss, best_score = (
            None if state[name] is None else check_number(name, state[name], FINITE)
            for name in ("best_loss", "best_score")
        )
        self.rows_seen, self.no_improvement_count = (
            check_json_int(name, state[name]) for name in ("rows_seen", "waited")
        )
        self.best_loss, self.best_score = best_loss, best_score
        self.losses, self.scores = curves["losses"].tolist(), curves["scores"].tolist()


class EpochEnd(Callback):
    """The callback that extends `metrics`, and stops the training as scikit-learn's MLPClassifier does.

    n: rows of an epoch. decay: the loss has the penalty 0.5·decay·‖W‖². score: of the held-out rows; None for their
    accuracy. split_seed: of the held-out rows, None where there are none; a resumed fit holds out the same. With
    early_stopping the score decides and `best` keeps the parameters of the best epoch; without it the loss decides.

    A checkpoint holds the state under this class's name.
    """

    def __init__(
        self,
        parameters: Parameters,
        metrics: FitMetrics,
        n: int,
        decay: float,
        score: Callable[[Network], float] | None = None,
        split_seed: int | None = None,
    ):
        self.parameters, self.metrics, self.n, self.decay = parameters, metrics, n, decay
        self.score, self.split_seed = score, split_seed
        self.epochs = 0
        self.best = BestWeights()

    def begin(self, trainer: TrainerView) -> None:
        self.best.begin(trainer.net)

    def __call__(self, trainer: TrainerView, record: EpochRecord) -> None:
        metrics, tol = self.metrics, self.parameters.tol
        self.epochs += 1
        metrics.rows_seen += self.n
        loss = record.loss + self._penalty(trainer.net)
        score = record.validation_accuracy if self.score is None else self.score(trainer.net)
        by_score = self.parameters.early_stopping and score is not None
        if by_score:
            better = metrics.best_score is None or score >= metrics.best_score + tol
        else:
            better = metrics.best_loss is None or loss <= metrics.best_loss - tol
        metrics.no_improvement_count = 0 if better else metrics.no_improvement_count + 1
        if score is not None:
            metrics.scores.append(score)
            if metrics.best_score is None or score > metrics.best_score:
                metrics.best_score = score
                if by_score:
                    self.best.keep(trainer.net)
        metrics.losses.append(loss)
        metrics.best_loss = loss if metrics.best_loss is None else min(loss, metrics.best_loss)
        if self.parameters.verbose:
            print(record.line())
        self._update_learning_rate_or_stop(trainer, trainer.optimizer.schedule)

    def _penalty(self, net: Network) -> float:
        if not self.decay:
            return 0.0
        weights = net.flat_parameters[: net.flat.n_decayed]
        return 0.5 * self.decay * float(weights @ weights)

    def _update_learning_rate_or_stop(self, trainer: TrainerView, schedule: Schedule) -> None:
        parameters, metrics = self.parameters, self.metrics
        if isinstance(schedule, EpochRate) and parameters.learning_rate == "invscaling":
            schedule.lr = parameters.learning_rate_init / (metrics.rows_seen + 1) ** parameters.power_t
        if metrics.no_improvement_count <= parameters.n_iter_no_change:
            return
        message = f"no better by tol={parameters.tol:g} for {parameters.n_iter_no_change} epochs"
        adaptive = parameters.learning_rate == "adaptive"
        if adaptive and isinstance(schedule, EpochRate) and schedule.lr > _ADAPTIVE_MINIMUM:
            schedule.lr /= _ADAPTIVE_FACTOR
            metrics.no_improvement_count = 0
            message += f": the learning rate is {schedule.lr:g} from here on"
        else:
            trainer.stopping = True
        if parameters.verbose:
            print(message)

    def state(self) -> dict[str, Any]:
        state = {"epochs": self.epochs, "split_seed": self.split_seed}
        return {**state, **self.metrics.state(), **self.best.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.epochs = check_json_int("epochs", state["epochs"])
        self.metrics.load_state(state)
        self.best.load_state(state)


def resumed_split_seed(checkpoint: Checkpoint, random_state: Any, drawn: int) -> int:
    """The seed of the rows that the checkpoint's fit held out. drawn: the seed that this fit drew from random_state.

    Raises ValueError where the checkpoint has no seed and random_state draws another at each fit.
    """
    callbacks = checkpoint.training.get("callbacks")
    for entry in callbacks if isinstance(callbacks, list) else ():
        if isinstance(entry, list) and len(entry) == 2 and entry[0] == EpochEnd.__name__ and isinstance(entry[1], dict):
            seed = entry[1].get("split_seed")
            if type(seed) is int and 0 <= seed < SEED_LIMIT:
                return seed
            break
    if not isinstance(random_state, numbers.Integral):
        raise ValueError(
            f"resume needs to hold out the rows that were held out before, which {checkpoint.path} does not say and "
            f"random_state={random_state} draws anew: pass validation=(X, y)"
        )
    return drawn


@dataclass(frozen=True)
class WeightedEvaluation(Evaluation):
    """An evaluation with the estimator's labels and weights.

    labels: the encoder of the targets. weight: (n,) of the validation rows, on the network's device, or None.
    """

    labels: LabelEncoder
    weight: Array | None

    def of_arrays(self, x: Array, y: Array) -> tuple[float, float]:
        """Mean cost and accuracy over prepared data."""
        net, weight = self.net, self.weight
        logits = net.forward_prepared(x)
        losses = net.device.xp.empty(len(x), net.dtype)
        correct = self.labels.correct(logits, y)
        net.kernels.softmax_cross_entropy(logits, y, losses, None, **self.options)
        if weight is None:
            return float(losses.mean(dtype=np.float64)), float(correct.mean())
        total = weight.sum()
        return float((losses * weight).sum() / total), float((correct * weight).sum() / total)


def held_out_score(
    parameters: Parameters, labels: LabelEncoder, rows: Rows, classifier_of: Callable[[Network], Any]
) -> Callable[[Network], float] | None:
    """The function from a network to its score on the held-out rows; None for the accuracy, which Trainer computes.

    classifier_of: makes a fitted classifier from a network. Scorers get NumPy arrays, and `sample_weight` where the
    rows have weights.
    """
    scorer = parameters.scorer()
    if scorer is None:
        return None
    x, y = to_device(rows.x, CPU), to_device(rows.y, CPU)
    if y.ndim == 2 and labels.kind == "probabilities":
        y = y.argmax(axis=1)
    elif y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    weights = {} if rows.weight is None else {"sample_weight": to_device(rows.weight, CPU)}

    def score(net: Network) -> float:
        returned = scorer(classifier_of(net), x, y, **weights)
        try:
            value = float(returned)
        except (TypeError, ValueError):
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(
                f"scoring={parameters.scoring!r} gave {returned!r} on the held-out rows; expected a number"
            )
        return value

    return score
