"""What the launches of a training step must read, write and compute, from the network's widths alone.

The launches are those of a step as a CUDA graph with cublasLt's epilogues. Divided by a GPU's memory bandwidth and its
rate of matrix products they are the least that a step can take. A test compares them with the launches that are made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class Launch:
    """Bytes and operations of a kernel of a step, or of several together."""

    kernels: int
    bytes: float
    operations: float = 0.0


@dataclass(frozen=True)
class Training:
    """widths: as `Network` takes them. batch: rows. size: bytes of an activation and of a factor of a product."""

    name: str
    widths: Sequence[int]
    batch: int
    size: int = FLOAT32

    @property
    def layers(self) -> list[tuple[int, int]]:
        return list(pairwise(self.widths))

    @property
    def parameters(self) -> list[int]:
        """Of each layer."""
        return [inputs * outputs + outputs for inputs, outputs in self.layers]

    @property
    def gradient_bytes(self) -> int:
        """Gradients are float32 in every precision."""
        return FLOAT32 * sum(self.parameters)

    def launches(self) -> list[Launch]:
        """Of a step on the whole batch."""
        backward = [launch for layer in self.backward(self.batch) for launch in layer]
        return [*self.forward(self.batch), *backward, self.update()]

    def forward(self, rows: float) -> list[Launch]:
        """Gather of rows and labels, the layers, and the loss with its gradient."""
        first, last = self.widths[0], self.widths[-1]
        return [
            Launch(2, rows * (first * (FLOAT32 + self.size) + 4 * 8)),
            *(self._product(rows, inputs, outputs, masked=outputs) for inputs, outputs in self.layers[:-1]),
            self._product(rows, *self.layers[-1]),
            Launch(1, rows * (2 * FLOAT32 * last + 12)),
        ]

    def backward(self, rows: float) -> list[list[Launch]]:
        """Of each layer, the last first; after its launches its gradient is complete."""
        found = []
        for i, (inputs, outputs) in reversed(list(enumerate(self.layers))):
            launches = [self._product(rows, inputs, outputs, of_weight=FLOAT32)]
            if i:
                # Its epilogue applies the derivative of the ReLU below, and sums the gradient of that layer's bias.
                launches.append(self._product(rows, inputs, outputs, masked=inputs))
                if self.size < FLOAT32:
                    # That gradient is float32, which a product of a half type does not write: it is summed afterwards.
                    launches.append(Launch(2, rows * inputs * self.size))
            found.append(launches)
        return found

    def update(self) -> Launch:
        """Adam reads and writes parameters and moments and reads the gradient; in mixed precision a cast then reads the
        parameters and writes the copies. Two kernels count losses and steps."""
        kernels, cast = (4, FLOAT32 + self.size) if self.size < FLOAT32 else (3, 0)
        return Launch(kernels, sum(self.parameters) * (7 * FLOAT32 + cast))

    def _product(self, rows: float, inputs: int, outputs: int, masked: int = 0, of_weight: int = 0) -> Launch:
        """masked: units of which a bit mask says where the ReLU is not 0. of_weight: bytes of a weight or its gradient,
        where they are not those of an activation."""
        moved = self.size * rows * (inputs + outputs) + (of_weight or self.size) * inputs * outputs
        moved += rows * -(-masked // 128) * 16  # cublasLt pads the mask of a row to 128 bits
        return Launch(1, moved, 2 * rows * inputs * outputs)
