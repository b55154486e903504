"""The one place where CPU and GPU differ: two modules with the same functions and the same signatures.

`numpy_kernels` and `cuda_kernels` implement, one file an operation:

    softmax_cross_entropy   loss and output gradient of each row, in one pass
    softmax                 softmax, log_softmax, log1m_softmax, all_but_one_softmax
    activation              bias + activation forward, activation backward with the bias gradient
    dense                   a dense layer and its backward pass: products, bias, activation
    linear                  matrix products and column sums
    optimizer               sgd, adam over the flat parameter vector; gradient_norm
    gather                  the rows of a batch
    batch_norm, layer_norm  normalisation + activation, and back with the gradients of scale and shift
    dropout, noise          counter-based: a mask, Gaussian noise
    record_loss             the cost of a batch, kept for the host, at the end of a step
    cast                    between float32 and the half types
    loss_scale              dynamic loss scaling for float16
    captured, apart         a step as one launch: a CUDA graph on a GPU; and what is done between two of them

Rules of the interface. Every output is an array that the caller owns and that is C-contiguous; only `captured` and
`relu_mask_bytes` return.
Arguments are not checked here: `gpu_nn.functional` and `Network` do it once. A label out of range is never used as an
address: its row becomes NaN. A number that changes from step to step (learning rate, step count, random counter) is an
array of one element on the device, so that a captured CUDA graph sees its new value.
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
