from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from gpu_nn.data.table import unique_names
from gpu_nn.estimator._fit import Fitted, fit
from gpu_nn.estimator._from_sklearn import fitted_from_sklearn, from_sklearn, shared_parameters
from gpu_nn.estimator._labels import LabelEncoder
from gpu_nn.estimator._parameters import Parameters
from gpu_nn.estimator._predict import TrainedClassifier
from gpu_nn.estimator._validation import (
    Rows,
    array_device,
    check_classes,
    check_sample_weight,
    check_X,
    check_y,
    to_device,
)
from gpu_nn.network import Network
from gpu_nn.training.checkpoint import load_checkpoint


# scikit-learn reads the parameters from the signature of the constructor. repr and comparison stay its own.
@dataclass(eq=False, repr=False)
class MLPClassifier(TrainedClassifier):
    """scikit-learn's multi-layer perceptron, trained on a GPU or the CPU with the all-but-one cross entropy.

    The parameters up to n_iter_no_change, but for scoring, are those of scikit-learn's MLPClassifier, with its
    meanings and defaults. Where they differ:

    activation: also every name of `gpu_nn.kernels.activations.ACTIVATIONS`.  solver: "sgd", "adam" or "adamw".  alpha:
    of AdamW the decoupled weight decay.  learning_rate: also a `gpu_nn.schedules.Schedule`, for any solver, in place of
    learning_rate_init.  early_stopping: restores the weights of the best epoch.  scoring: of held-out rows: None for
    accuracy, a name of scikit-learn's scorers, or scorer(estimator, X, y), with sample_weight if `fit` has it.

    class_weight: None, "balanced" or {class: weight}; multiplies the rows' weights.  normalisation: None, "layer" or
    "batch": of each hidden layer before its activation, see `LayerNorm` and `BatchNorm`.  dropout: after each hidden
    layer.  input_noise: deviation of the Gaussian noise that training adds to the inputs, after standardize.
    label_smoothing, complement_weight: of the cost, as in `functional.softmax_cross_entropy`; complement_weight=0 is
    the standard cross entropy.  standardize: bring the columns to mean 0 and deviation 1 as in the training rows (in
    partial_fit, those of the first call).  max_norm: clip the gradient of a step to this length.  callbacks: called as
    callback(trainer, record) after each epoch, see `Trainer`.  device: "auto", "cpu", "cuda", "cuda:1"; "auto" is the
    GPU of X if X is on one.  dtype: "float32" or "float64"; with nvmath-python on a GPU also "mixed_bfloat16",
    "mixed_float16" and "tf32", see `Network`, with results of float32.

    y: labels of any type, (n,); or flags of 0 and 1, (n, labels), for several labels a row, where predict returns
    flags and predict_proba the probability of each label; or probabilities of the classes, (n, classes), rows summing
    to 1, where the classes are the column numbers.

    X: NumPy, pandas, lists, CuPy, or a tensor with DLPack. Results are on the device of X: CuPy arrays for data on a
    GPU, which do not pass through the host, else NumPy; labels that are not numbers are always NumPy. Sparse X is a
    TypeError.

    Fitted: classes_, n_features_in_, feature_names_in_, net_ (the `Network`), history_ (`History` of all epochs),
    loss_ and loss_curve_ (mean cost and 0.5·alpha·‖W‖² penalty of an epoch), best_loss_, validation_scores_ and
    best_validation_score_ (accuracies, or of `scoring`; None without validation), n_iter_, t_, n_layers_, n_outputs_,
    out_activation_, and coefs_, intercepts_: copies as NumPy arrays. Two classes have two outputs, several labels a row
    one more than labels. Pickles hold NumPy arrays and open without a GPU.
    """

    hidden_layer_sizes: Any = (100,)
    activation: str = "relu"
    _: KW_ONLY
    solver: str = "adam"
    alpha: float = 0.0001
    batch_size: Any = "auto"
    learning_rate: Any = "constant"
    learning_rate_init: float = 0.001
    power_t: float = 0.5
    max_iter: int = 200
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    verbose: bool = False
    warm_start: bool = False
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    early_stopping: bool = False
    scoring: Any = None
    validation_fraction: float = 0.1
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    n_iter_no_change: float = 10
    class_weight: Any = None
    normalisation: str | None = None
    dropout: float = 0.0
    input_noise: float = 0.0
    label_smoothing: float = 0.0
    complement_weight: float = 1.0
    standardize: bool = False
    max_norm: float | None = None
    callbacks: Any = None
    device: str = "auto"
    dtype: Any = "float32"

    @classmethod
    def from_sklearn(cls, estimator: Any, *, device: str = "auto", dtype: Any = None) -> "MLPClassifier":
        """Convert scikit-learn's fitted classifier: same predictions, parameters and curves.

        estimator, dtype and errors: as in `gpu_nn.from_sklearn`; a StandardScaler before it is standardize=True.
        partial_fit and warm_start continue with its weights and a new optimizer, Adam in place of L-BFGS, on the cost
        that it was trained on, complement_weight=0.
        """
        net = from_sklearn(estimator, device=device, dtype=dtype)
        shared = shared_parameters(estimator, cls._get_param_names())
        classifier = cls(**shared, device=device, dtype=net.precision.name)
        classifier.n_features_in_ = net.n_inputs
        if hasattr(estimator, "feature_names_in_"):
            classifier.feature_names_in_ = estimator.feature_names_in_
        classifier._set_fitted(*fitted_from_sklearn(estimator, net, classifier._parameters()))
        return classifier

    def fit(
        self, X: Any, y: Any, sample_weight: Any = None, validation: Any = None, resume: Any = None
    ) -> "MLPClassifier":
        """Train on X, (n, features), and y; returns the classifier.

        sample_weight: (n,), finite and ≥ 0. validation: (X, y) to score after each epoch; with early_stopping it
        replaces the rows that would be held out. resume: a checkpoint file, or the folder of a `Checkpoints` among the
        callbacks, whose newest undamaged one is taken: with the same parameters and data, in this process or another,
        the training continues to the bits of an uninterrupted one and holds out the same rows, whatever random_state
        draws; max_iter counts the epochs before it too.

        Raises ValueError or TypeError for invalid parameters and data, DeviceError for a missing GPU and a dtype in
        which the device does not compute, DataError for a checkpoint that is damaged or of another training,
        TrainingDiverged when the loss is no longer finite. Warns with ConvergenceWarning when max_iter ends it.
        `Trainer.interrupt` and Ctrl-C end it early with a UserWarning, before the end of the first epoch with
        KeyboardInterrupt.
        """
        return self._fit(X, y, sample_weight, validation, resume, classes=None, incremental=False)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> "MLPClassifier":
        """One epoch over X, (n, features), and y; returns the classifier.

        classes: all labels of all calls; the first call needs them, unless y has several columns, one for each.
        Raises as `fit` does.
        """
        fitted = self.__sklearn_is_fitted__()
        if classes is not None:
            classes = check_classes(classes)
        if self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True; set it to False, or use fit")
        if isinstance(self.class_weight, str) and self.class_weight == "balanced":
            raise ValueError("class_weight='balanced' needs all of y, partial_fit sees a part: give a dict of weights")
        if not fitted and classes is None and (len(np.shape(y)) < 2 or np.shape(y)[1] == 1):
            raise ValueError("classes must be passed on the first call to partial_fit: all labels of all calls")
        if fitted and classes is not None and not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"classes={classes.tolist()}, but the first call had {self.classes_.tolist()}; leave them out"
            )
        return self._fit(X, y, sample_weight, None, None, classes, incremental=True)

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, validation: Any, resume: Any, classes: Any, incremental: bool
    ) -> "MLPClassifier":
        parameters = self._parameters()
        parameters.validate()
        checkpoint = load_checkpoint(resume, stacklevel=4)
        continues = self.__sklearn_is_fitted__() and (incremental or self.warm_start)
        x = check_X(self, X, dtype=parameters.array_dtype(), reset=not continues)
        device = array_device(x)
        y, weight = check_y(y, len(x), device), check_sample_weight(sample_weight, len(x), device)
        labels = self._label_encoder if continues else LabelEncoder.fit(y, classes)
        rows = Rows(x, to_device(labels.transform(y, parameters.array_dtype()), device), weight, y)
        fitted = fit(
            parameters,
            rows,
            self._validation_rows(validation, labels, parameters.array_dtype()),
            labels,
            lambda net: self._with_network(net, labels),
            feature_names=unique_names(getattr(self, "feature_names_in_", ())) or None,
            previous=Fitted(self.net_, self._fit_state, self.history_, self.n_iter_) if continues else None,
            incremental=incremental,
            checkpoint=checkpoint,
        )
        self._set_fitted(labels, fitted, validated=validation is not None or parameters.early_stopping)
        return self

    def _parameters(self) -> Parameters:
        return Parameters(**{name: getattr(self, name) for name in MLPClassifier._get_param_names()})

    def _validation_rows(self, validation: Any, labels: LabelEncoder, dtype: np.dtype) -> Rows | None:
        if validation is None:
            return None
        if not isinstance(validation, tuple | list) or len(validation) != 2:
            raise ValueError(f"validation is a {type(validation).__name__}; expected a pair (X, y)")
        x = check_X(self, validation[0], dtype=dtype, reset=False, name="validation X")
        device = array_device(x)
        y = check_y(validation[1], len(x), device, "validation y")
        return Rows(x, to_device(labels.transform(y, dtype, "validation y"), device), None, y)

    def _with_network(self, net: Network, labels: LabelEncoder) -> "MLPClassifier":
        """A fitted classifier that predicts with `net` during its training, for scorers."""
        classifier = object.__new__(type(self))
        # The held-out rows are arrays, whose columns have no names.
        classifier.__dict__.update({name: value for name, value in vars(self).items() if name != "feature_names_in_"})
        classifier.net_, classifier._label_encoder, classifier.classes_ = net, labels, labels.classes
        return classifier

    def _set_fitted(self, labels: LabelEncoder, fitted: Fitted, validated: bool) -> None:
        """Set the fitted attributes, which a fit that fails leaves unchanged."""
        metrics = fitted.state.metrics
        self.net_, self._fit_state, self._label_encoder = fitted.net, fitted.state, labels
        self.classes_, self.history_ = labels.classes, fitted.history
        self.n_iter_, self.t_ = fitted.n_iter, metrics.rows_seen
        self.n_layers_ = len(self._parameters().hidden_sizes()) + 2
        self.n_outputs_, self.out_activation_ = fitted.net.n_classes, "softmax"
        self.loss_, self.loss_curve_ = metrics.losses[-1], list(metrics.losses)
        self.best_loss_ = None if self.early_stopping else metrics.best_loss
        self.validation_scores_ = list(metrics.scores) if validated else None
        self.best_validation_score_ = metrics.best_score if validated else None
