"""What layer and batch normalisation share: the two sums over rows that are the gradients of scale and shift."""

from gpu_nn.device import Array
from gpu_nn.kernels.cuda_kernels.launch_config import COMPUTED, scratch
from gpu_nn.kernels.cuda_kernels.linear import add_partial_sums


def partial_gradients(x: Array, rows: int) -> tuple[Array, Array]:
    """Memory for `rows` rows of partial sums of the weight's gradient, and of the bias's; x: (n, width)."""
    size = rows * x.shape[1]
    partial = scratch(x, COMPUTED[x.dtype.name], 2 * size)
    return partial[:size], partial[size:]


def add_gradients(partial: tuple[Array, Array], rows: int, weight_grad: Array, bias_grad: Array) -> None:
    """The second stage of both sums."""
    for of_parameter, grad in zip(partial, (weight_grad, bias_grad), strict=True):
        add_partial_sums(of_parameter, rows, grad, add=False)
