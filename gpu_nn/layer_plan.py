"""Layers bound to a network's arrays and to memory for batches, which is kept from one batch to the next."""

from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

from gpu_nn.device import Array, Device
from gpu_nn.flat_parameters import FlatParameters
from gpu_nn.layers import BoundLayer, Layer, Workspace, join
from gpu_nn.precision import Precision

# So many sizes of batches are known at a time.
_MOST_SIZES = 64


class Step(NamedTuple):
    """The stages of a training step on so many rows; those of them that gradients reach, from the last one on; and the
    memory of the rows' costs."""

    stages: list[BoundLayer]
    learning: list[BoundLayer]
    loss: Array


class LayerPlan:
    """times: how often layers were bound anew: a step that was captured before uses memory that is no longer theirs.

    n_preprocessing: so many layers at the front work in the network's own type, which in mixed precision others do not.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        store: FlatParameters,
        device: Device,
        kernels: ModuleType,
        precision: Precision,
        n_preprocessing: int,
    ):
        self.times = 0
        self._layers, self._store, self._n_fixed = layers, store, n_preprocessing
        self._device, self._kernels, self._precision = device, kernels, precision
        # Gradients go back to the first layer that has any.
        self._first_learning = min((int(name.partition(".")[0]) for name in store.parameters), default=len(layers))
        # By whether it is for training.
        self._at: dict[bool, Workspace] = {}
        self._front: dict[bool, Workspace] = {}
        self._stages: dict[tuple[int, bool], list[BoundLayer]] = {}
        self._steps: dict[tuple[int, int], Step] = {}

    def stages(self, n: int, training: bool) -> list[BoundLayer]:
        """The layers at work on n rows; memory is allocated for the largest n met so far."""
        stages = self._stages.get((n, training))
        if stages is not None:
            return stages
        at = self._at.get(training)
        if at is None or at.capacity < n:
            self.times += at is not None
            of = self._precision
            at = self._at[training] = Workspace(self._device, self._kernels, of.compute, n, of.tf32)
            if of.mixed:
                self._front[training] = Workspace(self._device, self._kernels, of.dtype, n)
            self._stages = {key: value for key, value in self._stages.items() if key[1] != training}
            self._steps.clear()
        front = self._front.get(training, at)
        stages = [
            layer.stage(
                str(i),
                n,
                self._store.of_layer(i),
                self._store.grads_of_layer(i) if training else {},
                front if i < self._n_fixed else at,
            )
            for i, layer in enumerate(self._layers)
        ]
        if training:
            join(stages)
        if len(self._stages) > _MOST_SIZES:
            self._stages.clear()
        self._stages[n, training] = stages
        return stages

    def step(self, n: int, first: int) -> Step:
        """A training step on n rows over the layers from number `first` on."""
        step = self._steps.get((n, first))
        if step is None:
            stages = self.stages(n, training=True)[first:]
            learning = stages[max(self._first_learning - first, 0) :][::-1]
            if len(self._steps) > _MOST_SIZES:
                self._steps.clear()
            loss = self.at(training=True).rows("loss", n, 1, self._precision.dtype)[:, 0]
            step = self._steps[n, first] = Step(stages, learning, loss)
        return step

    def at(self, training: bool) -> Workspace:
        """Where the layers work behind those at the front, once there are stages."""
        return self._at[training]

    @property
    def nbytes(self) -> int:
        """The memory that has been taken for batches."""
        return sum(at.nbytes for at in (*self._at.values(), *self._front.values()))

    def rebind(self) -> None:
        """Bind the layers anew: a stage may hold a host copy of some state."""
        self.times += 1
        self._stages.clear()
        self._steps.clear()

    def release(self) -> None:
        """Let go of all memory for batches: fewer rows may fit, but not beside what was allocated for too many."""
        self._at.clear()
        self._front.clear()
        self.rebind()
