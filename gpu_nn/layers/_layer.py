"""What every layer offers to a network."""

from collections.abc import Mapping
from dataclasses import Field, dataclass, field
from types import ModuleType
from typing import Any, ClassVar, Protocol

import numpy as np

from gpu_nn.device import Array, Device


@dataclass
class Workspace:
    """Where a layer's stage works: kernels, type, and memory for batches of up to `capacity` rows.

    tf32: products may round their factors to TF32.  The arrays of a batch are slices of memory that is allocated once,
    so a shorter last batch allocates nothing.
    """

    device: Device
    kernels: ModuleType
    dtype: np.dtype
    capacity: int
    tf32: bool = False
    _memory: dict[str, Array] = field(default_factory=dict)

    def rows(self, name: str, n: int, width: int, dtype: Any = None) -> Array:
        """The (n, width) array of that name."""
        memory = self._memory.get(name)
        if memory is None:
            memory = self._memory[name] = self.device.empty((self.capacity, width), dtype or self.dtype)
        return memory[:n]

    def vector(self, name: str, size: int, dtype: Any = None) -> Array:
        """The (size,) array of that name, whatever the batch."""
        memory = self._memory.get(name)
        if memory is None:
            memory = self._memory[name] = self.device.empty((size,), dtype or self.dtype)
        return memory

    @property
    def nbytes(self) -> int:
        """What has been allocated."""
        return sum(memory.nbytes for memory in self._memory.values())


class BoundLayer(Protocol):
    """A layer bound to its parameters and to the memory of batches of n rows."""

    def forward(self, x: Array, training: bool) -> Array:
        """The layer's output for x, (n, inputs), in memory that the next call writes again."""

    def backward(self, d: Array, needs_input_grad: bool) -> Array | None:
        """Fill the gradients of the parameters from d = ∂C/∂output, which is overwritten; return ∂C/∂x if needed, or
        what `join` has made of it, which the stage below knows.

        Goes with the latest forward(x, training=True); x must be as it was.
        """


class Layer(Protocol):
    """The fields of a layer, a dataclass, and what follows from them.

    `fixed`: the layer has nothing to learn and nothing random, so before the first learning layer it can be applied
    once to the whole data set.  decayed: the parameters that weight decay applies to.  supports_half: it can work in
    float16 and bfloat16, with gradients of float32 for its parameters.  half_params: the parameters that it then takes in
    that type; the others stay in float32.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    fixed: ClassVar[bool]
    decayed: ClassVar[tuple[str, ...]]
    supports_half: ClassVar[bool]
    half_params: ClassVar[tuple[str, ...]]

    def n_outputs(self, n_inputs: int) -> int: ...

    def parameter_shapes(self, n_inputs: int) -> Mapping[str, tuple[int, ...]]:
        """The arrays that are learned."""

    def state_shapes(self, n_inputs: int) -> Mapping[str, tuple[tuple[int, ...], str | None]]:
        """The arrays that belong to the model but are not learned: shape and type (None: the network's)."""

    def initialise(self, arrays: Mapping[str, np.ndarray], random: np.random.Generator) -> None:
        """Fill parameters and state, given as host arrays by name."""

    def stage(
        self, name: str, n: int, arrays: Mapping[str, Array], grads: Mapping[str, Array], at: Workspace
    ) -> BoundLayer:
        """This layer at work on n rows. name: tells its memory from other layers'."""
