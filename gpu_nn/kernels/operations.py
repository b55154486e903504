"""The operations that both kernel packages implement: one list, by the module of the same name in either package."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

OPERATIONS = {
    # Loss and gradient of each row of logits, in one pass.
    "softmax_cross_entropy": ("softmax_cross_entropy",),
    "softmax": ("softmax", "log_softmax", "log1m_softmax", "all_but_one_softmax"),
    # Bias and activation forward; back, with the bias gradient.
    "activation": ("bias_activation", "bias_activation_backward"),
    # A dense layer and its backward pass: products, bias, activation.
    "dense": ("dense", "dense_backward", "relu_mask_bytes"),
    "linear": ("matmul", "matmul_add", "column_sum", "column_sum_add"),
    # Steps over the flat parameter vector.
    "optimizer": ("sgd", "adam", "gradient_norm", "clip_scale", "flush_subnormals", "increment"),
    # The rows of a batch.
    "gather": ("gather",),
    # Normalisation and activation; back, with the gradients of scale and shift.
    "batch_norm": ("batch_statistics", "batch_norm", "batch_norm_backward"),
    "layer_norm": ("layer_norm", "layer_norm_backward"),
    # From a counter-based generator: a mask, Gaussian noise.
    "dropout": ("dropout", "dropout_backward"),
    "noise": ("noise",),
    # The cost of a batch, kept on the device until the host reads it.
    "record_loss": ("record_loss",),
    # Between float32 and the half types.
    "cast": ("cast",),
    # Dynamic loss scaling for float16.
    "loss_scale": ("scale_rows", "adjust_loss_scale"),
    # A step as one launch, which is a CUDA graph on a GPU, and what the host does in the middle of it.
    "cuda_graph": ("cuda_graph", "host_break"),
}


def functions(package: str) -> dict[str, Callable[..., Any]]:
    """Every operation by name, as `package` implements it."""
    return {
        name: getattr(import_module(f"{package}.{module}"), name)
        for module, names in OPERATIONS.items()
        for name in names
    }
