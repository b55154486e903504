"""The cost for PyTorch: exact at every scale of the logits, with the arguments of torch.nn.functional.cross_entropy.

    from gpu_nn.torch import softmax_cross_entropy

    loss = softmax_cross_entropy(model(x), target)           # was: F.cross_entropy(model(x), target)
    loss.backward()

    softmax_cross_entropy         the function; class indices or probabilities as target
    SoftmaxCrossEntropy           the same as a torch.nn.Module
    linear_softmax_cross_entropy  the cost of input·weightᵀ + bias, never holding all logits

Tensors are used where they lie: those of the CPU by NumPy, those of a GPU by CuPy, on PyTorch's current stream. The
functions work under torch.compile and autocast. PyTorch is no dependency of gpu_nn and is not imported by it.
"""

try:
    from torch.library import custom_op as _custom_op  # noqa: F401  # from PyTorch 2.4 on
except ImportError as error:
    if error.name not in ("torch", "torch.library"):
        raise
    problem = "PyTorch is not installed" if error.name == "torch" else "this PyTorch is too old"
    raise ImportError(
        f"gpu_nn.torch needs PyTorch 2.6 or newer, but {problem}: pip install 'gpu_nn[torch]', or choose a build at "
        f"https://pytorch.org/get-started",
        name="torch",
    ) from None

from gpu_nn.torch._linear import linear_softmax_cross_entropy
from gpu_nn.torch._softmax_cross_entropy import SoftmaxCrossEntropy, softmax_cross_entropy

__all__ = ["SoftmaxCrossEntropy", "linear_softmax_cross_entropy", "softmax_cross_entropy"]
