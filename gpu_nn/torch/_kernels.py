"""Calls the kernels on the memory of PyTorch's tensors, on PyTorch's current stream."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from gpu_nn.device import CPU, Array, Device, cupy_module
from gpu_nn.kernels import kernels_for


class _CurrentStream:
    """PyTorch's current stream with the CUDA stream protocol, which torch.cuda.Stream lacks in older versions."""

    def __init__(self, device: torch.device):
        self._pointer = torch.cuda.current_stream(device).cuda_stream

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._pointer


@contextmanager
def active_device(device: torch.device) -> Iterator[Device]:
    """The Device of `device`; within the context it is CuPy's current device, and PyTorch's stream CuPy's stream."""
    if device.type == "cpu":
        yield CPU
        return
    cupy = cupy_module()
    index = torch.cuda.current_device() if device.index is None else device.index
    with cupy.cuda.Device(index), cupy.cuda.Stream.from_external(_CurrentStream(device)):
        yield Device(f"cuda:{index}", cupy)


def as_array(tensor: torch.Tensor, device: Device) -> Array:
    """An array of `device`, which must be the active one, on the memory of `tensor`."""
    tensor = tensor.detach()
    return tensor.numpy() if device.kind == "cpu" else device.xp.from_dlpack(tensor)


def softmax_cross_entropy(
    device: Device,
    logits: torch.Tensor,
    target: torch.Tensor,
    loss: torch.Tensor,
    grad: torch.Tensor | None,
    class_weight: torch.Tensor | None,
    row_scale: torch.Tensor | None,
    **options: float | None,
) -> None:
    """The kernel `softmax_cross_entropy` on contiguous tensors of the active device; grad may be the logits.

    options: complement_weight, label_smoothing and ignore_index. NumPy has no bfloat16: on the CPU the kernel computes
    bfloat16 logits and their gradient in a float32 copy.
    """
    source, out = logits, grad
    if device.kind == "cpu" and logits.dtype == torch.bfloat16:
        source = logits.float()
        out = None if grad is None else source
    tensors = (source, target, loss, out, class_weight, row_scale)
    *arrays, weights, factors = (None if tensor is None else as_array(tensor, device) for tensor in tensors)
    kernels_for(device).softmax_cross_entropy(*arrays, class_weight=weights, row_scale=factors, **options)
    if grad is not None and out is not grad:
        grad.copy_(source)
