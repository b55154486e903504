"""The network: layers over one flat parameter vector, with explicit backpropagation."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpu_nn.cost import Cost, check_reduction
from gpu_nn.device import Array, Device, resolve_device
from gpu_nn.errors import unknown_name
from gpu_nn.flat_parameters import FlatParameters
from gpu_nn.kernels import kernels_for
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.layer_plan import BoundLayers, LayerPlan
from gpu_nn.layers import Dense, Layer
from gpu_nn.multilabel import Multilabel, threshold
from gpu_nn.precision import DTYPES, FIRST_LOSS_SCALE, precision
from gpu_nn.validation import is_int, random_generator

__all__ = ["DTYPES", "Network"]

# Rows of a prediction that are computed at a time, which bounds the memory of activations.
INFERENCE_ROWS = 2048


class Network:
    """A classifier: layers from inputs to logits, and the gradient of the cost by backpropagation.

    layers: widths, [784, 256, 128, 10] (inputs, hidden layers with `activation`, logits), or layers, [Dense(256,
    "relu"), Dropout(0.2), Dense(10)], with n_inputs.  device: "auto", "cpu", "cuda", "cuda:1".  seed: of the
    initial weights and of dropout; the same seed gives the same bits on every device.  dtype: "float32" or "float64";
    with nvmath-python on a GPU also "mixed_bfloat16" and "mixed_float16": layers compute in the half type with float32
    accumulation, while parameters, gradients, returned logits and files are float32; and "tf32": float32, but matrix
    products may round their factors to TF32.

    parameters, grads: mappings "0.weight", "0.bias", … of views into one flat array each, flat_parameters and
    flat_grads.  state: arrays that belong to the model and have no gradient.  flat: the `FlatParameters` that hold all
    of these.  plan: the `LayerPlan` with the layers bound to them.
    n_preprocessing: the number of layers at the front that may be applied to a data set once.
    loss_scale: with "mixed_float16" a (1,) array, else None. `grads` and what `train_step` returns are multiplied by
    it; optimizers divide by it, adjust it, and skip a step whose gradient overflowed.
    multilabel: reads several labels a row from the outputs, the last of which is then the reference and no label; None
    for one label a row.  classes: names of the classes or labels.  feature_names, target_name: names of the columns of
    the table that inputs and labels came from. The caller may set these; None where there are none.
    """

    def __init__(
        self,
        layers: Sequence[int | Layer],
        *,
        n_inputs: int | None = None,
        activation: str = "relu",
        device: str | Device = "auto",
        dtype: Any = "float32",
        seed: int = 0,
    ):
        self.layers, self.n_inputs = _expanded(layers, n_inputs, activation)
        self.widths = [self.n_inputs]
        for layer in self.layers:
            self.widths.append(layer.n_outputs(self.widths[-1]))
        self.n_classes = self.widths[-1]
        if self.n_classes < 2:
            raise ValueError(f"the last layer has {self.n_classes} output; a softmax needs at least 2 classes")
        self.device = resolve_device(device)
        self.precision = precision(dtype, self.device)
        self.dtype, self._mixed = self.precision.dtype, self.precision.mixed
        self.kernels = kernels_for(self.device)
        self.multilabel: Multilabel | None = None
        self.classes: Sequence[Any] | None = None
        self.feature_names: Sequence[str] | None = None
        self.target_name: str | None = None
        random = random_generator(seed)
        self.flat = flat = FlatParameters(self.layers, self.widths, self.device, self.precision, random)
        self.flat_parameters, self.flat_grads = flat.flat_parameters, flat.flat_grads
        self.parameters, self.grads, self.state = flat.parameters, flat.grads, flat.state
        self.loss_scale: Array = None
        if self.precision.scales_loss:
            with self.device.active():
                self.loss_scale = self.device.zeros((1,), np.float32)
                self.loss_scale.fill(FIRST_LOSS_SCALE)
        preprocessing = [layer.is_preprocessing for layer in self.layers]
        self.n_preprocessing = preprocessing.index(False) if False in preprocessing else 0
        self.plan = LayerPlan(self.layers, flat, self.device, self.precision, self.n_preprocessing)
        if self._mixed:
            for layer in self.layers[self.n_preprocessing :]:
                if not layer.supports_half:
                    raise ValueError(f"dtype={self.precision.name!r}, but {layer} needs float32: use dtype='float32'")

    def __repr__(self) -> str:
        return (
            f"Network({list(self.layers)}, n_inputs={self.n_inputs}, device={self.device.name!r}, "
            f"dtype={self.precision.name})"
        )

    @property
    def inference_state(self) -> dict[str, Array]:
        """What training changes that predictions depend on: flat_parameters as "parameters", and the floating-point
        arrays of `state`, without the counters of random draws."""
        statistics = {name: array for name, array in self.state.items() if array.dtype.kind == "f"}
        return {"parameters": self.flat_parameters, **statistics}

    def _inputs(self, x: Any) -> Array:
        shape = np.shape(x)
        if len(shape) != 2 or shape[1] != self.n_inputs:
            raise ValueError(f"x has shape {shape}; expected (n, {self.n_inputs}), one column for each input")
        return self.device.asarray(x, self.dtype, "x")

    def prepare(self, x: Any, out: Array | None = None) -> Array:
        """`x` on the device, through the preprocessing layers at the front: what `train_step` takes. (n, inputs).

        out: where the result goes, of that shape and the network's dtype; None allocates it.
        """
        x = self._inputs(x)
        return x if not self.n_preprocessing and out is None else self._through(x, 0, self.n_preprocessing, out)

    def forward(self, x: Any) -> Array:
        """Logits of x, (n, inputs): (n, classes), without dropout and noise."""
        return self._through(self._inputs(x), 0, len(self.layers))

    def forward_prepared(self, x: Array) -> Array:
        """Logits of x as it comes out of `prepare`."""
        return self._through(x, self.n_preprocessing, len(self.layers))

    def _through(self, x: Array, first: int, last: int, out: Array | None = None) -> Array:
        with self.device.active():
            if out is None:
                out = self.device.xp.empty((len(x), self.widths[last]), self.dtype)
            if self._mixed:
                self.flat.update_half_copies()
            for start in range(0, len(x), INFERENCE_ROWS):
                rows = slice(start, start + INFERENCE_ROWS)
                a = x[rows]
                try:
                    layers = self.plan.bound_layers(len(a), training=False)[first:last]
                    a = self._forward(layers, a, first, training=False)
                except MemoryError:
                    self.plan.release()
                    raise
                if a.dtype == out.dtype:
                    out[rows] = a
                else:
                    self.kernels.cast(a, out[rows])
        return out

    def _forward(self, layers: BoundLayers, a: Array, first: int, training: bool) -> Array:
        """The output of `layers` for a; `first` is the index of the first of them."""
        for i, layer in enumerate(layers, first):
            if self._mixed and i >= self.n_preprocessing and a.dtype != self.precision.compute:
                half = self.plan.workspace(training).rows("half", *a.shape)
                self.kernels.cast(a, half)
                a = half
            a = layer.forward(a, training)
        return a

    def predict_proba(self, x: Any) -> Array:
        """Probabilities of the classes, (n, classes), or with `multilabel` of each label, (n, labels)."""
        logits = self.forward(x)
        with self.device.active():
            return self.probabilities(logits)

    def probabilities(self, logits: Array) -> Array:
        """`predict_proba` from logits, (n, n_classes) on the active device, which are overwritten."""
        if self.multilabel is not None:
            return self.multilabel.probabilities(self.device.xp, self.kernels.softmax, logits)
        self.kernels.softmax(logits, logits)
        return logits

    def predict(self, x: Any) -> Array:
        """The most probable class of each row, (n,) integers, or with `multilabel` 0/1 flags, (n, labels)."""
        logits = self.forward(x)
        with self.device.active():
            return logits.argmax(axis=1) if self.multilabel is None else threshold(logits)

    @property
    def n_probabilities(self) -> int:
        """The number of columns of `predict_proba`."""
        return self.n_classes - (self.multilabel is not None)

    def loss_and_grad(
        self,
        x: Any,
        y: Any,
        *,
        complement_weight: float = 1.0,
        class_weight: Any = None,
        sample_weight: Any = None,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
        reduction: str = "mean",
    ) -> Array:
        """The cost of one batch, a scalar on the device; fills `grads`.

        x: (n, inputs). y and the options as in `functional.softmax_cross_entropy`, but for reduction="mean", under
        which a learning rate means the same for every batch size.
        """
        cost = Cost(complement_weight, class_weight, label_smoothing, ignore_index)
        check_reduction(reduction, single_gradient=True)
        x = self._inputs(x)
        n = len(x)
        with self.device.active(f"a batch of fewer than {n:,} rows needs less"):
            y, options = cost.prepare(y, sample_weight, reduction, (n, self.n_classes), self.device.xp, self.dtype)
            total = self.train_step(x, y, 0, **options).sum()
            return total if self.loss_scale is None else total / self.loss_scale[0]

    def train_step(
        self, x: Array, y: Array, first: int, *, layer_done: Callable[[int], None] | None = None, **options: Any
    ) -> Array:
        """Forward, cost and backward over the layers first, first + 1, …; fills `grads`, returns the rows' costs, (n,).

        The next step overwrites the costs. Nothing is checked and nothing waits for the device.
        layer_done: called after the backward pass of each layer, the last one first, with the index in flat_grads from
        which on gradients are complete, up to n_decayed; those behind n_decayed are complete when this returns.
        options: of the kernel `softmax_cross_entropy`.
        """
        n = len(x)
        if n == 0:
            self.flat_grads[...] = 0
            if layer_done is not None:
                for i in reversed(range(first, len(self.layers))):
                    layer_done(self.flat.decayed_from(i))
            return self.flat_grads[:0]
        try:
            layers, backward_layers, loss = self.plan.training_pass(n, first)
            if self._mixed:
                self.flat.update_half_copies()
            a = self._forward(layers, x, first, training=True)
            if self.loss_scale is not None:
                scaled = self.plan.workspace(training=True).rows("row_scale", n, 1, np.float32)[:, 0]
                self.kernels.scale_rows(options.get("row_scale"), self.loss_scale, scaled)
                options["row_scale"] = scaled
            # The gradient is written over the logits.
            self.kernels.softmax_cross_entropy(a, y, loss, a, **options)
            d = a
            for i, layer in enumerate(backward_layers, 1):
                d = layer.backward(d, layer is not backward_layers[-1])
                if layer_done is not None:
                    layer_done(self.flat.decayed_from(len(self.layers) - i))
        except MemoryError:
            self.plan.release()
            raise
        return loss


def _expanded(layers: Sequence[int | Layer], n_inputs: int | None, activation: str) -> tuple[tuple[Layer, ...], int]:
    """The layers and the number of inputs, from widths or layers."""
    if activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    are_widths = [is_int(layer) for layer in layers]
    if not layers or any(are_widths) != all(are_widths):
        raise ValueError(f"layers={list(layers)!r}; expected widths, such as [784, 100, 10], or layers, not both")
    if not any(are_widths):
        if not (is_int(n_inputs) and n_inputs >= 1):
            raise ValueError(f"n_inputs={n_inputs!r}; expected the number of input columns when `layers` holds layers")
        return tuple(layer for layer in layers if not isinstance(layer, int | np.integer)), int(n_inputs)
    widths = [int(width) for width in layers if isinstance(width, int | np.integer)]
    if len(widths) < 2 or min(widths) < 1:
        raise ValueError(f"layers={widths}; expected at least inputs and classes, each a whole number ≥ 1")
    if n_inputs is not None and n_inputs != widths[0]:
        raise ValueError(f"n_inputs={n_inputs}, but layers begins with {widths[0]}; leave n_inputs out")
    hidden = [Dense(width, activation) for width in widths[1:-1]]
    return (*hidden, Dense(widths[-1])), widths[0]
