"""`backend`: the same assertions on NumPy, on the emulated GPU, and on a real one."""

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from gpu_nn import device
from gpu_nn.device import cuda_unavailable_reason
from gpu_nn.kernels import numpy_kernels


@dataclass(frozen=True)
class Backend:
    """A kernels module, the array module it works on, and the ways in and out.

    name: "numpy", "emulated" or "gpu". Arrays of the emulated device are neither NumPy's nor a caller's memory.
    """

    name: str
    kernels: ModuleType
    xp: Any

    def array(self, host: np.ndarray) -> Any:
        return host if self.name == "numpy" else self.xp.asarray(host)

    def zeros(self, shape: Any, dtype: Any) -> Any:
        return self.xp.zeros(shape, dtype)

    def shifted(self, host: np.ndarray, elements: int) -> Any:
        """`host` in memory that begins `elements` elements past a boundary of 16 bytes."""
        memory = self.array(np.zeros(host.size + elements, host.dtype))
        view = memory[elements:].reshape(host.shape)
        view[...] = self.array(host)
        return view

    def host(self, array: Any) -> np.ndarray:
        return array if self.name == "numpy" else array.get()


@pytest.fixture(params=["numpy", "emulated", pytest.param("gpu", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.getfixturevalue(f"{request.param}_backend")


@pytest.fixture
def numpy_backend() -> Backend:
    return Backend("numpy", numpy_kernels, np)


# With and without nvmath-python, for what has matrix products in it: `@WITH_PRODUCTS` on a test, or as pytestmark.
WITH_PRODUCTS = pytest.mark.parametrize(
    "backend", ["numpy", "emulated", "emulated_nvmath", pytest.param("gpu", marks=pytest.mark.gpu)], indirect=True
)


@pytest.fixture
def emulated_nvmath_backend(emulated_backend: Backend) -> Iterator[Backend]:
    from tests.cuda_emulator import nvmath_bindings

    with nvmath_bindings.installed():
        yield emulated_backend


@pytest.fixture
def emulated_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Backend]:
    """The launch code and the kernels of the GPU on the CPU. Lanes run in both orders, and must leave the same bits."""
    from tests.cuda_emulator import compiler, cupy_proxy, nvmath_bindings, require

    require()
    from gpu_nn.kernels import cuda_kernels

    if "-default-device" not in compiler.IGNORED_OPTIONS:
        monkeypatch.setattr(compiler, "IGNORED_OPTIONS", (*compiler.IGNORED_OPTIONS, "-default-device"))
    monkeypatch.setenv("CUDA_EMULATOR_ORDER", "both")
    monkeypatch.setattr(device, "cupy_override", cupy_proxy)
    with nvmath_bindings.installed(False):
        yield Backend("emulated", cuda_kernels, cupy_proxy)


@pytest.fixture
def gpu_backend() -> Backend:
    if reason := cuda_unavailable_reason():
        pytest.skip(reason)
    import cupy

    from gpu_nn.kernels import cuda_kernels

    return Backend("gpu", cuda_kernels, cupy)
