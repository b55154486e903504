"""The network: layers over one flat parameter vector, with explicit backpropagation (seed, section 3)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpu_nn.cost import Cost, check_reduction, row_scale, targets, weights
from gpu_nn.device import Array, Device, resolve_device
from gpu_nn.errors import unknown_name
from gpu_nn.flat_parameters import FlatParameters
from gpu_nn.kernels import kernels_for
from gpu_nn.kernels.activations import ACTIVATIONS
from gpu_nn.layer_plan import LayerPlan
from gpu_nn.layers import BoundLayer, Dense, Layer
from gpu_nn.multilabel import Multilabel, threshold
from gpu_nn.precision import DTYPES, FIRST_LOSS_SCALE, precision
from gpu_nn.validation import is_int, random_generator

__all__ = ["DTYPES", "Network"]

# Rows at a time where nothing is learned; their activations are all the memory that prediction takes.
INFERENCE_ROWS = 2048


class Network:
    """A classifier: layers that turn inputs into logits, and the cost's gradient back through them.

    layers: widths, [784, 256, 128, 10] (inputs, hidden layers with `activation`, logits), or layers, [Dense(256,
    "relu"), Dropout(0.2), Dense(10)], with n_inputs.  device: "auto", "cpu", "cuda", "cuda:1".  seed: of the
    initial weights and of dropout; the same seed gives the same bits on every device.  dtype: "float32" or "float64";
    with nvmath-python on a GPU also "mixed_bfloat16" and "mixed_float16": layers work in the half type with sums of
    float32, while parameters, gradients, logits handed out and files are of float32; and "tf32": float32, but products
    may round their factors to TF32.

    parameters, grads: mappings "0.weight", "0.bias", … of views into ONE flat array each, flat_parameters and
    flat_grads (weights of Dense first, `n_decayed` elements that weight decay applies to, then the rest; each array
    begins on a multiple of 16 elements, and the gaps stay 0).  state: arrays that belong to the model and are not
    learned by gradients.  exchanged: flat_grads and, behind it, what training by several ranks adds up with it:
    `beside_grads`, 16 numbers, and `running`, those of `state` that follow the batches.
    loss_scale: with "mixed_float16" a (1,) array, else None: `grads`, and what `train_step` returns, then have this
    factor in them, which optimizers take off; they change it, and leave a step out whose gradient overflowed.
    multilabel: how several labels a row are read out of the outputs, of which the last is then no label; None for
    one label a row.  classes: names of the classes, or of the labels, when the data had names; feature_names,
    target_name: of the columns that the inputs and the labels were, each input's another, when they came from a table;
    free for the caller to set.
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
        self._store = store = FlatParameters(
            self.layers, self.widths, self.device, self.precision, random_generator(seed)
        )
        self.flat_parameters, self.flat_grads = store.flat_parameters, store.flat_grads
        self.exchanged, self.beside_grads, self.running = store.exchanged, store.beside_grads, store.running
        self.parameters, self.grads, self.state = store.parameters, store.grads, store.state
        self.n_parameters, self.n_decayed = store.n_parameters, store.n_decayed
        self.loss_scale: Array = None
        if self.precision.scales_loss:
            with self.device.active():
                self.loss_scale = self.device.zeros((1,), np.float32)
                self.loss_scale.fill(FIRST_LOSS_SCALE)
        # Layers before the first learning one, which may be applied to a data set once.
        self.n_preprocessing = next((i for i, layer in enumerate(self.layers) if not layer.fixed), 0)
        self._binding = LayerPlan(self.layers, store, self.device, self.kernels, self.precision, self.n_preprocessing)
        if self._mixed:
            for layer in self.layers[self.n_preprocessing :]:
                if not layer.supports_half:
                    raise ValueError(
                        f"dtype={self.precision.name!r}, but {layer} works in float32 alone: use dtype='float32'"
                    )

    def __repr__(self) -> str:
        return (
            f"Network({list(self.layers)}, n_inputs={self.n_inputs}, device={self.device.name!r}, "
            f"dtype={self.precision.name})"
        )

    @property
    def learned(self) -> dict[str, Array]:
        """What training leaves behind for predictions: flat_parameters as "parameters", and of `state` the running
        figures, but not the counters of random draws."""
        running = {name: array for name, array in self.state.items() if array.dtype.kind == "f"}
        return {"parameters": self.flat_parameters, **running}

    def stages(self, n: int, training: bool) -> list[BoundLayer]:
        """The layers at work on n rows; memory is allocated for the largest n met so far."""
        return self._binding.stages(n, training)

    @property
    def bindings(self) -> int:
        """How often the layers were bound anew: a step captured before then uses memory that is no longer theirs."""
        return self._binding.times

    def rebind(self) -> None:
        """Bind the layers anew, after `state` was written from outside: a stage may hold a host copy of some of it."""
        self._binding.rebind()

    @property
    def parameter_bytes(self) -> int:
        """The memory of the parameters, and of their copies in a half type."""
        return self._store.parameter_bytes

    @property
    def working_bytes(self) -> int:
        """The memory that the layers have taken to work in, for the largest batches met so far."""
        return self._binding.nbytes

    def _inputs(self, x: Any) -> Array:
        shape = np.shape(x)
        if len(shape) != 2 or shape[1] != self.n_inputs:
            raise ValueError(f"x has shape {shape}; expected (n, {self.n_inputs}), one column for each input")
        return self.device.asarray(x, self.dtype, "x")

    def prepare(self, x: Any, out: Array | None = None) -> Array:
        """`x` on the device, through the fixed layers at the front: what `train_step` takes. (n, inputs).

        out: where it goes, of that shape and the network's dtype; None for memory of its own.
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
                self._store.copy()
            for start in range(0, len(x), INFERENCE_ROWS):
                rows = slice(start, start + INFERENCE_ROWS)
                a = x[rows]
                try:
                    stages = self.stages(len(a), training=False)
                    a = self._forward(stages[first:last], a, first, training=False)
                except MemoryError:
                    self._binding.release()
                    raise
                if a.dtype == out.dtype:
                    out[rows] = a
                else:
                    self.kernels.cast(a, out[rows])
        return out

    def _forward(self, stages: list[BoundLayer], a: Array, first: int, training: bool) -> Array:
        """a through the stages, which begin with number `first`."""
        for i, stage in enumerate(stages, first):
            if self._mixed and i >= self.n_preprocessing and a.dtype != self.precision.compute:
                half = self._binding.at(training).rows("half", *a.shape)
                self.kernels.cast(a, half)
                a = half
            a = stage.forward(a, training)
        return a

    def predict_proba(self, x: Any) -> Array:
        """Probabilities of the classes, (n, classes); of several labels a row each label's own, (n, labels)."""
        logits = self.forward(x)
        with self.device.active():
            return self.probabilities(logits)

    def probabilities(self, logits: Array) -> Array:
        """What `predict_proba` gives for these logits, (n, n_classes) on the active device; they are used up."""
        if self.multilabel is not None:
            return self.multilabel.probabilities(self.device.xp, self.kernels.softmax, logits)
        self.kernels.softmax(logits, logits)
        return logits

    def predict(self, x: Any) -> Array:
        """The most probable class of each row, (n,) integers; of several labels a row their flags, (n, labels)."""
        logits = self.forward(x)
        with self.device.active():
            return logits.argmax(axis=1) if self.multilabel is None else threshold(logits)

    @property
    def n_answers(self) -> int:
        """Columns of `predict_proba`: the classes, or the labels of which a row has several."""
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
        check_reduction(reduction)
        if reduction == "none":
            raise ValueError('reduction="none" has no single gradient of the parameters; expected "sum" or "mean"')
        x = self._inputs(x)
        n, xp = len(x), self.device.xp
        with self.device.active(f"a batch of fewer than {n:,} rows needs less"):
            y = targets(y, n, self.n_classes, ignore_index, xp, self.dtype)
            if sample_weight is not None:
                sample_weight = weights("sample_weight", sample_weight, n, "rows", xp, self.dtype)
            scale_rows, scale = row_scale(y, sample_weight, ignore_index, reduction, n, xp, self.dtype)
            options = cost.kernel_options(xp, self.n_classes, self.dtype)
            total = self.train_step(x, y, 0, row_scale=scale_rows, scale=scale, **options).sum()
            return total if self.loss_scale is None else total / self.loss_scale[0]

    def train_step(
        self, x: Array, y: Array, first: int, *, filled: Callable[[int], None] | None = None, **options: Any
    ) -> Array:
        """Forward, cost and backward over the layers from number `first` on; fills `grads`, returns the rows' costs.

        They are (n,), in memory that the next step writes again. Nothing is checked and nothing waits for the device.
        filled: called after the backward pass of each layer, the last one first, with where flat_grads begins to hold
        its gradients, up to n_decayed; behind that they are there at the end.
        options: those of the kernel `softmax_cross_entropy`.
        """
        n = len(x)
        if n == 0:
            self.flat_grads[...] = 0
            if filled is not None:
                for i in reversed(range(first, len(self.layers))):
                    filled(self._store.decayed_from(i))
            return self.flat_grads[:0]
        try:
            stages, learning, loss = self._binding.step(n, first)
            a = x
            if self._mixed:
                self._store.copy()
                a = self._forward(stages, x, first, True)
            else:
                for stage in stages:
                    a = stage.forward(a, True)
            if self.loss_scale is not None:
                scaled = self._binding.at(training=True).rows("row_scale", n, 1, np.float32)[:, 0]
                self.kernels.scale_rows(options.get("row_scale"), self.loss_scale, scaled)
                options["row_scale"] = scaled
            # The gradient is written over the logits.
            self.kernels.softmax_cross_entropy(a, y, loss, a, **options)
            d = a
            for i, stage in enumerate(learning, 1):
                d = stage.backward(d, stage is not learning[-1])
                if filled is not None:
                    filled(self._store.decayed_from(len(self.layers) - i))
        except MemoryError:
            self._binding.release()
            raise
        return loss


def _expanded(layers: Sequence[int | Layer], n_inputs: int | None, activation: str) -> tuple[tuple[Layer, ...], int]:
    """The layers and the number of inputs that either form of `layers` stands for."""
    if activation not in ACTIVATIONS:
        raise unknown_name("activation", activation, ACTIVATIONS)
    numbers = [is_int(layer) for layer in layers]
    if not layers or any(numbers) != all(numbers):
        raise ValueError(f"layers={list(layers)!r}; expected widths, such as [784, 100, 10], or layers, not both")
    if not any(numbers):
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
