"""The one place where CPU and GPU differ: two packages with the same functions and the same signatures.

`numpy_kernels` and `cuda_kernels` implement what `operations.OPERATIONS` lists, in modules of the same names.

Rules of the interface. Every output is a C-contiguous array that the caller owns; only `cuda_graph` and
`relu_mask_bytes` return a value.
`gpu_nn.functional` and `Network` check arguments; the kernels do not. A label out of range is never used as an address:
its row becomes NaN. A number that changes from step to step (learning rate, step count, random counter) is an array of
one element on the device, so that a captured CUDA graph sees its new value.
"""

from types import ModuleType

from gpu_nn.device import Device


def kernels_for(device: Device) -> ModuleType:
    """The kernels that run on `device`."""
    if device.kind == "cpu":
        from gpu_nn.kernels import numpy_kernels

        return numpy_kernels
    from gpu_nn.kernels import cuda_kernels

    return cuda_kernels


def why_no_half_products(device: Device) -> str:
    """Why the device's matrix products take no half types and no TF32, with a hint; empty where they do."""
    if device.kind == "cpu":
        return "the CPU computes in float32 and float64: use dtype='float32', or device='cuda'"
    from gpu_nn.kernels.cuda_kernels import cublaslt

    with device.active():
        return "" if cublaslt.available() else cublaslt.MISSING
