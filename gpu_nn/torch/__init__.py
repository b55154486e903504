"""The cost for PyTorch: exact at every scale of the logits, with the arguments of torch.nn.functional.cross_entropy.

    from gpu_nn.torch import softmax_cross_entropy

    loss = softmax_cross_entropy(model(x), target)           # was: F.cross_entropy(model(x), target)
    loss.backward()

    softmax_cross_entropy         the function; class indices or probabilities as target
    SoftmaxCrossEntropy           the same as a torch.nn.Module
    linear_softmax_cross_entropy  the cost of input·weightᵀ + bias, never holding all logits

complement_weight weights the terms: 0 is the standard cross entropy, α the unlikelihood of every class but the label
(Welleck et al. 2020, arXiv 1908.04319) beside it, -ln p_y - α Σ_{t≠y} ln(1-p_t). Where only some classes are forbidden,
the same ones in all rows, their term is that of a target that is all zero:

    loss = softmax_cross_entropy(z, y, complement_weight=0)
    loss += alpha * softmax_cross_entropy(z, torch.zeros_like(z), weight=forbidden)    # forbidden: (C,), 1 or 0

A term cannot be turned round by its sign: -complement_weight would reward p_t → 1 without bound.

Tensors are used where they lie: those of the CPU by NumPy, those of a GPU by CuPy, on PyTorch's current stream. The
functions work under torch.compile and autocast. PyTorch is no dependency of gpu_nn and is not imported by it.

There is one derivative, taken by backward() or torch.autograd.grad. The forward pass computes it and keeps it in place
of the logits, so nothing is left to differentiate again: second derivatives (a Hessian, a gradient penalty) are a
RuntimeError, forward mode (torch.func.jvp, jacfwd, dual tensors) is a NotImplementedError. torch.func.grad, jacrev and
hessian end in a RuntimeError too: PyTorch cannot take them through an operator made by torch.library.custom_op. The way
to a Jacobian is torch.autograd.functional.jacobian, to all else torch.nn.functional.cross_entropy.
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
