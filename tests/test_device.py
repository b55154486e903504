import builtins
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from gpu_nn import device
from gpu_nn.device import CPU, Device, resolve_device
from gpu_nn.distributed import nccl
from gpu_nn.errors import DeviceError, OutOfDeviceMemory
from gpu_nn.kernels.cuda_kernels import cublaslt
from gpu_nn.kernels.cuda_kernels.launch import Kernel


@pytest.fixture
def cupy_with(monkeypatch):
    """Puts a stand-in for CuPy in its place that finds so many GPUs."""

    def cupy_with(gpus: int, driver: int = 0, built_for: int = 12090) -> ModuleType:
        cupy = ModuleType("cupy")
        runtime = SimpleNamespace(
            getDeviceCount=lambda: gpus, driverGetVersion=lambda: driver, runtimeGetVersion=lambda: built_for
        )
        cupy.cuda = SimpleNamespace(is_available=lambda: gpus > 0, runtime=runtime)
        monkeypatch.setitem(sys.modules, "cupy", cupy)
        return cupy

    return cupy_with


def broken_cupy(monkeypatch, error):
    original = builtins.__import__

    def failing(name, *arguments, **options):
        if name == "cupy":
            raise error
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", failing)


def test_cpu_is_numpy():
    assert resolve_device("cpu") == CPU == Device("cpu", np)
    assert (CPU.kind, CPU.index, str(CPU)) == ("cpu", 0, "cpu")


def test_a_device_is_itself():
    assert resolve_device(CPU) is CPU


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("cudo", "cuda"), ("gpu", "cuda"), ("GPU", "cuda"), ("CPU", "cpu"), ("cuda:", "cuda:1"), ("cuda:-1", "cuda:1")],
)
def test_an_unknown_device_is_a_value_error_with_the_nearest(name, nearest):
    with pytest.raises(ValueError, match="is not one of auto, cpu, cuda, cuda:1") as error:
        resolve_device(name)
    assert str(error.value).endswith(f"Did you mean {nearest!r}?")


@pytest.mark.parametrize("name", ["", None, 0, "cuda:1:2", "cuda 1", "tpu:0"])
def test_what_is_no_name_is_a_value_error(name):
    with pytest.raises(ValueError, match="is not one of auto, cpu, cuda, cuda:1"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:3"])
def test_cuda_without_a_gpu_is_an_error_and_never_the_cpu(cupy_with, name):
    cupy_with(0)
    with pytest.raises(DeviceError, match="CuPy finds no NVIDIA GPU or driver: check nvidia-smi") as error:
        resolve_device(name)
    assert f"device={name!r}" in str(error.value)


@pytest.mark.parametrize(
    ("driver", "built_for", "said"),
    [
        (12040, 13000, "the driver knows CUDA 12.4 and CuPy is made for CUDA 13: update the driver, or pip install"),
        (11080, 12090, "the driver knows CUDA 11.8 and CuPy is made for CUDA 12: update the driver, or pip install"),
        (12000, 12090, "CuPy finds no NVIDIA GPU or driver"),
        (13000, 12090, "CuPy finds no NVIDIA GPU or driver"),
        (0, 12090, "CuPy finds no NVIDIA GPU or driver"),
    ],
)
def test_an_outdated_driver_is_distinguished_from_a_missing_one(cupy_with, driver, built_for, said):
    cupy_with(0, driver, built_for)
    with pytest.raises(DeviceError) as error:
        resolve_device("cuda")
    assert said in str(error.value)
    assert ("'gpu_nn[cuda12x]' (drivers from 525 on)" in str(error.value)) == ("pip" in said)


def test_a_driver_that_does_not_answer_is_none(cupy_with):
    cupy = cupy_with(0)

    def no_answer():
        raise RuntimeError("cudaErrorInsufficientDriver")

    cupy.cuda.runtime.driverGetVersion = no_answer
    with pytest.raises(DeviceError, match="CuPy finds no NVIDIA GPU or driver"):
        resolve_device("cuda")


def test_auto_without_a_gpu_is_the_cpu_and_says_why(cupy_with):
    cupy_with(0)
    chosen = resolve_device("auto")
    assert (chosen.name, chosen.xp) == ("cpu", np)
    assert "CuPy finds no NVIDIA GPU" in str(chosen)


def test_auto_with_gpus_is_the_first(cupy_with):
    cupy = cupy_with(2)
    chosen = resolve_device("auto")
    assert (chosen.name, chosen.kind, chosen.index, chosen.xp) == ("cuda:0", "cuda", 0, cupy)
    assert "auto" in str(chosen)


def test_a_gpu_is_chosen_by_its_number(cupy_with):
    cupy_with(2)
    assert resolve_device("cuda").name == "cuda:0"
    assert (resolve_device("cuda:1").index, str(resolve_device("cuda:1"))) == (1, "cuda:1")


def test_a_number_beyond_the_gpus_is_an_error_that_says_how_many(cupy_with):
    cupy_with(2)
    with pytest.raises(DeviceError, match=r"device='cuda:2', but the GPUs here are 'cuda:0' to 'cuda:1'"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'cupy'"), r"CuPy is not installed: pip install 'gpu_nn\[cuda12x\]'"),
        (ImportError("libnvrtc.so: no such file\nmore"), r"cannot be imported \(libnvrtc\.so: no such file\)"),
    ],
)
def test_a_missing_cupy_is_distinguished_from_a_broken_one(cupy_with, monkeypatch, error, reason):
    broken_cupy(monkeypatch, error)
    with pytest.raises(DeviceError, match=reason):
        resolve_device("cuda")


def test_arrays_on_the_cpu_are_contiguous_and_not_copied_without_need():
    array = np.arange(6.0).reshape(2, 3)
    assert CPU.asarray(array) is array
    assert CPU.to_host(array) is array
    assert CPU.asarray(array.T).flags.c_contiguous
    assert CPU.asarray([1, 2], np.float32).dtype == np.float32


def test_nothing_of_cupy_is_needed_for_the_cpu(monkeypatch):
    monkeypatch.setattr(device, "cuda_unavailable_reason", lambda: pytest.fail("asked for a GPU"))
    assert resolve_device("cpu") is CPU


@pytest.mark.parametrize("shape", [(), (1,), (3, 7), (0, 5), (1000,)])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_arrays_on_the_cpu_begin_on_a_cache_line(shape, dtype):
    for array in (CPU.empty(shape, dtype), CPU.zeros(shape, dtype)):
        assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
        assert array.ctypes.data % 64 == 0 or not array.size
        assert array.flags.c_contiguous
        assert array.flags.writeable
    assert not array.any()


def message_of(kind, call):
    with pytest.raises(kind) as error:
        call()
    return str(error.value)


def failures(cupy_with, monkeypatch):
    """What is really said, in the order of README's table."""

    class NoMemory(MemoryError):
        _size = 8 << 30

    def fills_the_memory():
        cuda = SimpleNamespace(Device=lambda index: nullcontext(), memory=SimpleNamespace(OutOfMemoryError=NoMemory))
        with Device("cuda:0", SimpleNamespace(cuda=cuda)).active():
            raise NoMemory("Out of memory allocating 8,589,934,592 bytes")

    def compile_kernel():
        def without_headers(**_):
            raise RuntimeError("cannot open source file cuda_fp16.h")

        Kernel("softmax.cu", "softmax<float>", ("float32",))._compile(SimpleNamespace(RawModule=without_headers))

    for error in (ModuleNotFoundError("No module named 'cupy'"), ImportError("libcudart.so.12: cannot open")):
        with monkeypatch.context() as patch:
            broken_cupy(patch, error)
            yield device.cuda_unavailable_reason()
    cupy_with(0)
    yield device.cuda_unavailable_reason()
    cupy_with(0, driver=12040, built_for=13000)
    yield device.cuda_unavailable_reason()
    cupy_with(2)
    yield message_of(DeviceError, lambda: resolve_device("cuda:2"))
    yield message_of(DeviceError, compile_kernel)
    yield message_of(OutOfDeviceMemory, fills_the_memory)
    yield cublaslt.MISSING
    yield message_of(DeviceError, nccl.module)


def test_readme_quotes_what_is_said_where_the_gpu_does_not_come(cupy_with, monkeypatch):
    text = (Path(__file__).parent.parent / "README.md").read_text()
    passage = text.partition("## When the GPU does not come\n")[2].partition("<!-- /failures -->")[0]
    before, _, table = passage.partition("<!-- failures -->\n")
    assert f"`{device.INSTALL_HINT}`" in " ".join(before.split())
    quotes = re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)
    said = [" ".join(message.split()) for message in failures(cupy_with, monkeypatch)]
    assert len(quotes) == len(said) == 9
    for quote, message in zip(quotes, said, strict=True):
        assert re.fullmatch(".+".join(map(re.escape, quote.split("…"))), message), (quote, message)
