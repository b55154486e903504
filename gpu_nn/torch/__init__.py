"""The cost for PyTorch: exact at every scale of the logits, with the arguments of torch.nn.functional.cross_entropy.

    from gpu_nn.torch import softmax_cross_entropy

    loss = softmax_cross_entropy(model(x), target)           # was: F.cross_entropy(model(x), target)
    loss.backward()

    softmax_cross_entropy         the function; class indices or probabilities as target
    SoftmaxCrossEntropy           the same as a torch.nn.Module
    linear_softmax_cross_entropy  the cost of input·weightᵀ + bias, without all logits in memory

complement_weight weights the terms: 0 is the standard cross entropy, α the unlikelihood of every class but the label
(Welleck et al. 2020, arXiv 1908.04319) beside it, -ln p_y - α Σ_{t≠y} ln(1-p_t). Where only some classes are forbidden,
the same ones in all rows, their term is that of a target that is all zero:

    loss = softmax_cross_entropy(z, y, complement_weight=0)
    loss += alpha * softmax_cross_entropy(z, torch.zeros_like(z), weight=forbidden)    # forbidden: (C,), 1 or 0

complement_weight cannot be negative: it would reward p_t → 1 without bound.

NumPy computes on the memory of CPU tensors, CuPy on that of GPU tensors, on PyTorch's current stream. The functions
work under torch.compile and autocast. PyTorch is not a dependency of gpu_nn, and only this package imports it.

backward() and torch.autograd.grad give the first derivative. The forward pass computes it and keeps it instead of the
logits, so second derivatives (a Hessian, a gradient penalty) raise RuntimeError, and forward mode (torch.func.jvp,
jacfwd, dual tensors) raises NotImplementedError. torch.func.grad, jacrev and hessian raise RuntimeError, since PyTorch
does not support them for operators of torch.library.custom_op. torch.autograd.functional.jacobian computes a Jacobian;
for all else use torch.nn.functional.cross_entropy.
"""

try:
    import torch.library as _library
except ModuleNotFoundError as error:
    if not str(error.name).startswith("torch"):
        raise
    _problem = "PyTorch is not installed"
else:
    _problem = "" if hasattr(_library, "custom_op") else "this PyTorch is too old"
if _problem:
    raise ImportError(
        f"gpu_nn.torch needs PyTorch 2.6 or newer, but {_problem}: pip install 'gpu_nn[torch]', or choose a build at "
        f"https://pytorch.org/get-started",
        name="torch",
    )

from gpu_nn.torch._linear_softmax_cross_entropy import linear_softmax_cross_entropy
from gpu_nn.torch._softmax_cross_entropy import SoftmaxCrossEntropy, softmax_cross_entropy

__all__ = ["SoftmaxCrossEntropy", "linear_softmax_cross_entropy", "softmax_cross_entropy"]
