"""What happens at the end of an epoch: the curves grow, the best is kept, and the training goes on or stops."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpu_nn.device import Array
from gpu_nn.estimator._labels import Labelling
from gpu_nn.network import Network
from gpu_nn.schedules import Schedule
from gpu_nn.training import Callback, EpochRecord, Trainer
from gpu_nn.training.callbacks.best_weights import BestWeights
from gpu_nn.training.checkpoint import Checkpoint
from gpu_nn.training.evaluation import Evaluation
from gpu_nn.validation import FINITE, check_json_int, check_number

# Seeds are drawn below it.
SEED_LIMIT = 2**31 - 1

# "adaptive" divides the learning rate by the one, and stops where it is not above the other (scikit-learn's numbers).
_ADAPTIVE_FACTOR, _ADAPTIVE_LOWEST = 5.0, 1e-6


@dataclass
class EpochRate(Schedule):
    """A learning rate that stays until the end of an epoch sets another."""

    lr: float

    def __call__(self, step: int) -> float:
        return self.lr

    def state(self) -> dict[str, Any]:
        return {"lr": self.lr}

    def load_state(self, state: dict[str, Any]) -> None:
        self.lr = check_number("lr", state["lr"])


@dataclass
class Progress:
    """What a classifier's training has come to; calls of partial_fit add to it.

    losses: cost and penalty of each epoch. scores: on held-out rows. best_loss, best_score: None until there
    is one. rows_seen: rows times epochs. waited: epochs in a row that were not better by tol.
    """

    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best_loss: float | None = None
    best_score: float | None = None
    rows_seen: int = 0
    waited: int = 0

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {**vars(self), "losses": np.array(self.losses, float), "scores": np.array(self.scores, float)}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave. Raises ValueError or TypeError for what it cannot have given."""
        curves = {name: np.asarray(state[name]) for name in ("losses", "scores")}
        for name, curve in curves.items():
            if curve.ndim != 1 or curve.dtype != np.float64 or not np.isfinite(curve).all():
                raise ValueError(f"{name} are {curve.shape} of {curve.dtype}, or not finite")
        told = {name: state[name] for name in ("best_loss", "best_score")}
        best = {name: None if value is None else check_number(name, value, FINITE) for name, value in told.items()}
        self.rows_seen, self.waited = (check_json_int(name, state[name]) for name in ("rows_seen", "waited"))
        self.best_loss, self.best_score = best["best_loss"], best["best_score"]
        self.losses, self.scores = curves["losses"].tolist(), curves["scores"].tolist()


class EpochEnd(Callback):
    """The callback that keeps `progress`, and stops the training as scikit-learn's MLPClassifier does.

    estimator: where the parameters stand. n: rows of an epoch. decay: 0.5·decay·‖W‖² is the penalty of the loss.
    score: of the held-out rows; None for their accuracy. With early_stopping the score decides, and the parameters of
    the best epoch are kept; else the loss does. split_seed: by which rows were held out, None where none were; a fit
    that resumes holds out the same.
    """

    def __init__(
        self,
        estimator: Any,
        progress: Progress,
        n: int,
        decay: float,
        score: Callable[[Network], float] | None = None,
        split_seed: int | None = None,
    ):
        self.split_seed = split_seed
        self.estimator, self.progress, self.n, self.decay, self.score = estimator, progress, n, decay, score
        self.epochs = 0
        self.best = BestWeights()

    def __call__(self, trainer: Trainer, record: EpochRecord) -> None:
        progress, tol = self.progress, self.estimator.tol
        self.epochs += 1
        progress.rows_seen += self.n
        loss = record.loss + self._penalty(trainer.net)
        score = record.validation_accuracy if self.score is None else self.score(trainer.net)
        by_score = self.estimator.early_stopping and score is not None
        if by_score:
            better = progress.best_score is None or score >= progress.best_score + tol
        else:
            better = progress.best_loss is None or loss <= progress.best_loss - tol
        progress.waited = 0 if better else progress.waited + 1
        if score is not None:
            progress.scores.append(score)
            if progress.best_score is None or score > progress.best_score:
                progress.best_score = score
                if by_score:
                    self.best.keep(trainer.net)
        progress.losses.append(loss)
        progress.best_loss = loss if progress.best_loss is None else min(loss, progress.best_loss)
        if self.estimator.verbose:
            print(record.line())
        self._decide(trainer, trainer.optimizer.schedule)

    def _penalty(self, net: Network) -> float:
        if not self.decay:
            return 0.0
        weights = net.flat_parameters[: net.flat.n_decayed]
        return 0.5 * self.decay * float(weights @ weights)

    def begin(self, trainer: Trainer) -> None:
        self.best.begin(trainer.net)

    def state(self) -> dict[str, Any]:
        told = {"epochs": self.epochs, "split_seed": self.split_seed}
        return {**told, **self.progress.state(), **self.best.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.epochs = check_json_int("epochs", state["epochs"])
        self.progress.load_state(state)
        self.best.load_state(state)

    def _decide(self, trainer: Trainer, rate: Schedule) -> None:
        estimator, progress = self.estimator, self.progress
        if isinstance(rate, EpochRate) and estimator.learning_rate == "invscaling":
            rate.lr = estimator.learning_rate_init / (progress.rows_seen + 1) ** estimator.power_t
        if progress.waited <= estimator.n_iter_no_change:
            return
        said = f"no better by tol={estimator.tol:g} for {estimator.n_iter_no_change} epochs"
        if isinstance(rate, EpochRate) and estimator.learning_rate == "adaptive" and rate.lr > _ADAPTIVE_LOWEST:
            rate.lr /= _ADAPTIVE_FACTOR
            progress.waited = 0
            said += f": the learning rate is {rate.lr:g} from here on"
        else:
            trainer.stopping = True
        if estimator.verbose:
            print(said)


def split_seed_of(checkpoint: Checkpoint) -> int | None:
    """By which the fit that wrote it held rows out; None where it held none out or does not say."""
    callbacks = checkpoint.training.get("callbacks")
    for entry in callbacks if isinstance(callbacks, list) else ():
        if isinstance(entry, list) and len(entry) == 2 and entry[0] == EpochEnd.__name__ and isinstance(entry[1], dict):
            seed = entry[1].get("split_seed")
            return seed if type(seed) is int and 0 <= seed < SEED_LIMIT else None
    return None


@dataclass(frozen=True)
class LabelledEvaluation(Evaluation):
    """An evaluation that knows what a right row is, and what it weighs.

    labelling: of the targets. weight: (n,) of the rows that are evaluated, on the network's device, or None.
    """

    labelling: Labelling
    weight: Array | None

    def of_arrays(self, x: Array, y: Array) -> tuple[float, float]:
        """Mean cost and accuracy over prepared data."""
        net, weight = self.net, self.weight
        logits = net.forward_prepared(x)
        losses = net.device.xp.empty(len(x), net.dtype)
        right = self.labelling.right(logits, y)
        net.kernels.softmax_cross_entropy(logits, y, losses, None, **self.options)
        if weight is None:
            return float(losses.mean(dtype=np.float64)), float(right.mean())
        total = weight.sum()
        return float((losses * weight).sum() / total), float((right * weight).sum() / total)
