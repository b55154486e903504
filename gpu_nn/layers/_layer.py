"""What every layer offers to a network, with the defaults of a layer that learns nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np

from gpu_nn.device import Array, Device


@dataclass
class Workspace:
    """Kernels, compute type and memory for batches of up to `capacity` rows, shared by the layers of a network.

    tf32: products may round their factors to TF32. The arrays of a batch are slices of memory that is allocated once,
    so a shorter last batch allocates nothing.
    """

    device: Device
    kernels: ModuleType
    dtype: np.dtype
    capacity: int
    tf32: bool = False
    _memory: dict[str, Array] = field(default_factory=dict)

    def rows(self, name: str, n: int, width: int, dtype: Any = None) -> Array:
        """The (n, width) array of that name, of the compute type unless `dtype` is given."""
        return self._array(name, (self.capacity, width), dtype)[:n]

    def vector(self, name: str, size: int, dtype: Any = None) -> Array:
        """The (size,) array of that name, whatever the batch."""
        return self._array(name, (size,), dtype)

    def _array(self, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
        memory = self._memory.get(name)
        if memory is None:
            memory = self._memory[name] = self.device.empty(shape, dtype or self.dtype)
        return memory

    @property
    def nbytes(self) -> int:
        """The bytes allocated."""
        return sum(memory.nbytes for memory in self._memory.values())


@dataclass
class LayerMemory:
    """The memory of one layer for batches of n rows.

    index: the layer's position in the network.  arrays: its parameters and state by their names in the layer.
    grads: where the gradients of its parameters go, empty outside training.
    """

    index: int
    n: int
    arrays: Mapping[str, Array]
    grads: Mapping[str, Array]
    workspace: Workspace

    def rows(self, name: str, width: int, dtype: Any = None) -> Array:
        """The layer's (n, width) array of that name in the workspace."""
        return self.workspace.rows(f"{self.index}.{name}", self.n, width, dtype)

    def vector(self, name: str, size: int, dtype: Any = None) -> Array:
        """The layer's (size,) array of that name in the workspace."""
        return self.workspace.vector(f"{self.index}.{name}", size, dtype)


@dataclass(frozen=True)
class Layer:
    """A layer is its fields and what follows from them; a subclass overrides what differs, and at least `bind`.

    is_preprocessing: the layer learns nothing and draws nothing, so in front of the other layers it can be applied once
    to the whole data set.  supports_half: it can compute in float16 and bfloat16, with float32 gradients of its
    parameters.  half_params: the parameters that it then takes in the half type; the others stay float32.
    weight_decay_params: the parameters that weight decay applies to.  start_at_1: parameters and state that do so.
    """

    is_preprocessing: ClassVar[bool] = False
    supports_half: ClassVar[bool] = True
    half_params: ClassVar[tuple[str, ...]] = ()
    weight_decay_params: ClassVar[tuple[str, ...]] = ()
    start_at_1: ClassVar[tuple[str, ...]] = ()

    def n_outputs(self, n_inputs: int) -> int:
        """The number of output columns."""
        return n_inputs

    def parameter_shapes(self, n_inputs: int) -> Mapping[str, tuple[int, ...]]:
        """The arrays that gradients update."""
        return {}

    def state_shapes(self, n_inputs: int) -> Mapping[str, tuple[tuple[int, ...], str | None]]:
        """The arrays that belong to the model but have no gradient: shape and dtype (None: the network's)."""
        return {}

    def initialise(self, arrays: Mapping[str, np.ndarray], random: np.random.Generator) -> None:
        """Fill parameters and state, given as host arrays of zeros by name."""
        for name in self.start_at_1:
            arrays[name][:] = 1

    def bind(self, memory: LayerMemory) -> "BoundLayer[Any]":
        """This layer on the parameters and batch memory of a network."""
        raise NotImplementedError


LayerT = TypeVar("LayerT", bound=Layer)


class BoundLayer(Generic[LayerT]):
    """A layer bound to its parameters and to the memory of batches of n rows."""

    def __init__(self, layer: LayerT, memory: LayerMemory):
        self.layer, self.memory = layer, memory
        self.kernels = memory.workspace.kernels

    def forward(self, x: Array, training: bool) -> Array:
        """The layer's output for x, (n, inputs), in memory that the next call overwrites."""
        raise NotImplementedError

    def backward(self, d: Array, needs_input_grad: bool) -> Array | None:
        """Fill the gradients of the parameters from d = ∂C/∂output, which is overwritten; return ∂C/∂x if needed.

        It belongs to the latest forward(x, training=True); x must be unchanged. Where `fuse_relu_backward` fused the
        ReLU of the layer below, the result is that layer's ∂C/∂z.
        """
        return d
