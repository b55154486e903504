from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_is_fitted

from gpu_nn.device import Array, Device
from gpu_nn.estimator import _pickling
from gpu_nn.estimator._fit import fit
from gpu_nn.estimator._from_sklearn import adopted
from gpu_nn.estimator._validation import class_names, inputs, labels, moved, opened, place, row_weights


class MLPClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """scikit-learn's multi-layer perceptron, trained on a GPU or the CPU with the all-but-one cross entropy.

    Parameters of scikit-learn's MLPClassifier have its names, meanings and defaults: hidden_layer_sizes, solver ("sgd",
    "adam"; "adamw" too), alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, shuffle,
    random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, validation_fraction, beta_1,
    beta_2, epsilon, n_iter_no_change. Where they differ:

    activation: also every name of `gpu_nn.kernels.activations.ACTIVATIONS`.  alpha: of AdamW the decoupled weight
    decay.  learning_rate: also a `gpu_nn.schedules.Schedule`, for any solver, in the place of learning_rate_init.
    early_stopping: the weights of the best epoch come back.  scoring: what held-out rows are scored by: None for
    accuracy, a name of scikit-learn's scorers, or scorer(estimator, X, y), with sample_weight where `fit` has it.

    class_weight: None, "balanced" or {class: weight}; multiplies the rows' weights.  normalisation: None, "layer" or
    "batch": of each hidden layer before its activation, see `LayerNorm` and `BatchNorm`.  dropout: after each hidden
    layer.  input_noise: deviation of the Gaussian noise that training adds to the inputs, after standardize.
    label_smoothing, complement_weight: of the cost, as in `functional.softmax_cross_entropy`; complement_weight=0 is
    the standard cross entropy.  standardize: bring the columns to mean 0 and deviation 1 as in the training rows (in
    partial_fit, those of the first call).  max_norm: clip the gradient of a step to this length.  callbacks: called as
    callback(trainer, record) after each epoch, see `Trainer`.  device: "auto", "cpu", "cuda", "cuda:1"; "auto" computes
    where X lies if that is a GPU.  dtype: "float32" or "float64"; with nvmath-python on a GPU also
    "mixed_bfloat16", "mixed_float16" and "tf32", see `Network`, with results of float32.

    y: labels of any type, (n,); or flags of 0 and 1, (n, labels), for several labels a row, where predict answers with
    flags and predict_proba with the probability of each label; or probabilities of the classes, (n, classes), rows
    summing to 1, where the classes are the column numbers.

    X: NumPy, pandas, lists, CuPy, or a tensor that speaks DLPack. Results lie where X lies: CuPy arrays for data on a
    GPU, which do not pass through the host, else NumPy. Only labels that are not numbers are always NumPy. Sparse X is
    a TypeError.

    Fitted: classes_, n_features_in_, feature_names_in_, net_ (the `Network`), history_ (`History` of all epochs),
    loss_ and loss_curve_ (mean cost and 0.5·alpha·‖W‖² penalty of an epoch), best_loss_, validation_scores_ and
    best_validation_score_ (accuracies, or of `scoring`; None without validation), n_iter_, t_, n_layers_, n_outputs_,
    out_activation_, and coefs_, intercepts_: copies as NumPy arrays. Two classes have two outputs, several labels a row
    one more than labels. Pickles hold NumPy arrays and open without a GPU.
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        scoring: Any = None,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        class_weight: Any = None,
        normalisation: str | None = None,
        dropout: float = 0.0,
        input_noise: float = 0.0,
        label_smoothing: float = 0.0,
        complement_weight: float = 1.0,
        standardize: bool = False,
        max_norm: float | None = None,
        callbacks: Any = None,
        device: str = "auto",
        dtype: Any = "float32",
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.power_t = power_t
        self.max_iter = max_iter
        self.shuffle = shuffle
        self.random_state = random_state
        self.tol = tol
        self.verbose = verbose
        self.warm_start = warm_start
        self.momentum = momentum
        self.nesterovs_momentum = nesterovs_momentum
        self.early_stopping = early_stopping
        self.scoring = scoring
        self.validation_fraction = validation_fraction
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.n_iter_no_change = n_iter_no_change
        self.class_weight = class_weight
        self.normalisation = normalisation
        self.dropout = dropout
        self.input_noise = input_noise
        self.label_smoothing = label_smoothing
        self.complement_weight = complement_weight
        self.standardize = standardize
        self.max_norm = max_norm
        self.callbacks = callbacks
        self.device = device
        self.dtype = dtype

    @classmethod
    def from_sklearn(cls, estimator: Any, *, device: str = "auto", dtype: Any = None) -> "MLPClassifier":
        """scikit-learn's fitted classifier as one of ours: same predictions, parameters and curves.

        estimator, dtype and errors: as in `gpu_nn.from_sklearn`; a StandardScaler before it is standardize=True.
        partial_fit and warm_start go on with its weights, and with an optimizer that begins anew, Adam in the place of
        L-BFGS. The cost stays the one that it was trained on, complement_weight=0.
        """
        return adopted(cls, estimator, device, dtype)

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, validation: Any = None, resume: Any = None
    ) -> "MLPClassifier":
        """Train on X, (n, features), and y; returns the classifier.

        sample_weight: (n,), finite and ≥ 0. validation: (X, y) of one's own to be scored after each epoch; with
        early_stopping it takes the place of the part that would be split off. resume: a checkpoint's file, or the
        folder of a `Checkpoints` among the callbacks, whose newest whole one is taken: with parameters and data as they
        were, in this process or another, the training goes on from there and ends in the bits of an unbroken one, with
        the same rows held out whatever random_state draws now; max_iter counts the epochs before it too.

        Raises ValueError or TypeError for parameters and data that do not fit, DeviceError for a GPU that is not there
        and a dtype in which the device does not compute, DataError for a checkpoint that is damaged or of another
        training, TrainingDiverged when the loss is no longer finite. Warns with ConvergenceWarning when max_iter ends
        it. `Trainer.interrupt` and Ctrl-C end it early with a UserWarning, before the end of the first epoch with
        KeyboardInterrupt.
        """
        fit(self, X, y, sample_weight, validation, resume=resume)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> "MLPClassifier":
        """One epoch over X, (n, features), and y; returns the classifier.

        classes: all labels that will ever come; the first call needs them, unless y has several columns, one for
        each. Raises as `fit` does.
        """
        fitted = self.__sklearn_is_fitted__()
        if classes is not None:
            classes = class_names(classes)
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True; set it to False, or use fit")
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            raise ValueError("class_weight='balanced' needs all of y, partial_fit sees a part: give a dict of weights")
        if not fitted and classes is None and (len(np.shape(y)) < 2 or np.shape(y)[1] == 1):
            raise ValueError("classes must be passed on the first call to partial_fit: all labels that will ever come")
        if fitted and classes is not None and not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"classes={classes.tolist()}, but the first call had {self.classes_.tolist()}; leave them out"
            )
        fit(self, X, y, sample_weight, None, classes=classes, incremental=True)
        return self

    def predict(self, X: Any) -> Array:
        """The label of each row of X, (n, features): (n,), or flags (n, labels) of int64 for several labels a row."""
        logits, at = self._logits(X)
        with self.net_.device.active():
            found = self._labelling.named(self._labelling.decided(logits))
        return moved(found, at) if found.dtype.kind in "biuf" else found

    def predict_proba(self, X: Any) -> Array:
        """Probabilities, (n, classes), in the order of classes_ and of the network's dtype.

        Rows sum to 1; for several labels a row each number is the probability of its label alone, above ½ where
        `predict` gives the label.
        """
        logits, at = self._logits(X)
        with self.net_.device.active():
            return moved(self.net_.probabilities(logits), at)

    def predict_log_proba(self, X: Any) -> Array:
        """Logarithms of `predict_proba`, finite where the probability itself is too small for its type."""
        logits, at = self._logits(X)
        with self.net_.device.active():
            return moved(self._labelling.log_probabilities(self.net_, logits), at)

    def decision_function(self, X: Any) -> Array:
        """Logits: the difference of the two, (n,), for two classes, else (n, classes).

        For several labels a row, (n, labels), positive where `predict` gives the label.
        """
        logits, at = self._logits(X)
        with self.net_.device.active():
            return moved(self._labelling.scores(logits), at)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Accuracy on X, (n, features), and y; several labels of a row must all be right. Rows of probabilities count
        as their largest."""
        found = self.predict(X)
        at = place(found)
        y, weight = labels(y, len(found), at), row_weights(sample_weight, len(found), at)
        with at.active():
            if self._labelling.kind == "probabilities" and y.ndim == 2:
                y = y.argmax(axis=1)
            if at.kind == "cpu":
                return float(accuracy_score(y, found, sample_weight=weight))
            y = at.asarray(y)
            y = y[:, 0] if found.ndim == 1 and y.shape == (len(y), 1) else y
            if y.shape != found.shape:
                raise ValueError(f"y has shape {y.shape}; expected {found.shape}, as predict gives it")
            right = found == y
            right = right if right.ndim == 1 else right.all(axis=1)
            return float(right.mean() if weight is None else (right * weight).sum() / weight.sum())

    def _logits(self, X: Any) -> tuple[Array, Device]:
        """Logits of X on the network's device, in memory that is the caller's, and where X lies."""
        check_is_fitted(self)
        net, X = self.net_, opened("X", X)
        x = inputs(self, X, dtype=net.dtype, reset=False)
        return net.forward(moved(x, net.device)), place(X)

    @property
    def coefs_(self) -> list[np.ndarray]:
        """The weights of the dense layers, (inputs, units) each: read-only copies; `net_.parameters` can be changed."""
        return _pickling.parameters(self.net_, "weight")

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """The biases of the dense layers, (units,) each, 0 before a `BatchNorm`: copies, read-only."""
        return _pickling.parameters(self.net_, "bias")

    def __sklearn_is_fitted__(self) -> bool:
        return "net_" in vars(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def __getstate__(self) -> dict[str, Any]:
        return _pickling.without_device(dict(super().__getstate__()))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(_pickling.with_device(dict(state)))
