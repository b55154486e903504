"""The emulated GPU as a device of gpu_nn: the package's own launch code, on the proxy and the emulator."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from gpu_nn import device
from gpu_nn.device import Device
from tests.cuda_emulator import cupy_proxy, nvmath_bindings, require


@contextmanager
def emulated_device(nvmath: bool = False) -> Iterator[Device]:
    """While it lasts, "cuda" is the emulated device, and its arrays are those of `cupy_proxy`.

    nvmath: whether nvmath-python is there, with which training steps become CUDA graphs.
    """
    require()
    with mock.patch.object(device, "cupy_override", cupy_proxy), nvmath_bindings.installed(nvmath):
        yield device.resolve_device("cuda")
