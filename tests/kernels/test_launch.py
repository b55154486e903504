"""Launches: what arguments are rejected, what is compiled, and how sources are found."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from gpu_nn import device
from gpu_nn.errors import DeviceError
from gpu_nn.kernels.cuda_kernels import launch, sources
from gpu_nn.kernels.cuda_kernels.launch import Kernel

SOURCE = """
template <class T> __global__ void scale(const T* x, T* out, long long n, T by) {
    const long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (x != nullptr && i < n) out[i] = by * x[i];
}
extern "C" __global__ void staged(float* out, int n) {
    extern __shared__ float memory[];
    if (threadIdx.x == 0) memory[n - 1] = 3.0f;
    __syncthreads();
    out[threadIdx.x] = memory[n - 1];
}
"""


class DeviceArray:
    """As much of a CuPy array as `launch` looks at."""

    def __init__(self, size=4, dtype="float32", device=0, contiguous=True):
        self.size, self.shape, self.strides = size, (size,), (4,)
        self.dtype = np.dtype(dtype)
        self.device = SimpleNamespace(id=device)
        self.flags = SimpleNamespace(c_contiguous=contiguous)


class Recorder:
    """A CuPy of two devices that compiles anything and notes what it is asked to launch."""

    ndarray = DeviceArray

    def __init__(self, error=None):
        self.launches, self.compiled, self.error, self.current = [], [], error, 0
        recorder = self

        class Device:
            def __init__(self, device=None):
                self.id = recorder.current if device is None else device

            def __enter__(self):
                self.before, recorder.current = recorder.current, self.id

            def __exit__(self, *_):
                recorder.current = self.before

        class RawModule:
            def __init__(self, *, code, options, name_expressions):
                self.names = name_expressions

            def get_function(self, name):
                if recorder.error:
                    raise recorder.error
                recorder.compiled.append((name, recorder.current))
                return Function(name)

        class Function:
            max_dynamic_shared_size_bytes = 48 * 1024

            def __init__(self, name):
                self.name = name

            def __call__(self, grid, block, arguments, *, shared_mem):
                assert shared_mem <= self.max_dynamic_shared_size_bytes
                recorder.launches.append((self.name, recorder.current, grid, block, arguments, shared_mem))

        self.cuda, self.RawModule = SimpleNamespace(Device=Device), RawModule


@pytest.fixture
def recorder(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(device, "cupy_override", recorder)
    monkeypatch.setattr(launch, "source", lambda file: SOURCE)
    return recorder


def scale():
    return Kernel("scale.cu", "scale<float>", arrays=("float32", "float32"), numbers=(np.int64, np.float32))


def refused(error, match, *arrays, sizes=(4, 4), numbers=(4, 2.0)):
    with pytest.raises(error, match=match):
        launch.launch(scale(), (1,), (32,), arrays, sizes, numbers)


def test_numbers_get_the_kernels_types_and_none_is_a_null_pointer(recorder):
    out = DeviceArray()
    launch.launch(scale(), (1,), (32,), (None, out), (4, 4), (4, 2))
    ((_, _, grid, block, arguments, _),) = recorder.launches
    assert (grid, block) == ((1,), (32,))
    assert arguments[1] is out
    assert [type(argument) for argument in (arguments[0], *arguments[2:])] == [np.intp, np.int64, np.float32]
    assert arguments[0] == 0


def test_arrays_that_a_kernel_would_misread_are_refused(recorder):
    good = DeviceArray()
    refused(TypeError, "array 0 of scale<float> is a numpy.ndarray, not a CuPy array", np.ones(4, np.float32), good)
    refused(TypeError, "array 1 of scale<float> has dtype float64, not float32", good, DeviceArray(dtype="float64"))
    refused(ValueError, r"array 0 of scale<float> has 5 elements \(shape \(5,\)\), not 4", DeviceArray(5), good)
    refused(ValueError, "array 1 of scale<float> is not C-contiguous", good, DeviceArray(contiguous=False))
    refused(DeviceError, "array 1 of scale<float> is on .*, the first array on", good, DeviceArray(device=1))
    refused(DeviceError, "is on", DeviceArray(device=1), good)
    refused(OverflowError, "int too big|too large", good, good, numbers=(2**70, 2.0))
    refused(ValueError, "zip", good, good, numbers=(4,))
    assert recorder.launches == []


def test_an_empty_grid_is_checked_and_not_launched(recorder):
    refused(TypeError, "dtype", DeviceArray(0, "int32"), DeviceArray(0), sizes=(0, 0))
    launch.launch(scale(), (0,), (32,), (DeviceArray(0), DeviceArray(0)), (0, 0), (0, 2.0))
    assert recorder.launches == recorder.compiled == []


def test_each_device_gets_its_own_kernel_once_and_is_current_for_it(recorder):
    kernel = scale()
    for index in (0, 1, 0, 1):
        launch.launch(kernel, (1,), (32,), (DeviceArray(device=index), DeviceArray(device=index)), (4, 4), (4, 2.0))
    assert [current for _, current, *_ in recorder.launches] == [0, 1, 0, 1]
    assert recorder.compiled == [("scale<float>", 0), ("scale<float>", 1)]
    assert recorder.current == 0


def test_more_than_48_kb_of_shared_memory_are_asked_for_first(recorder):
    kernel = scale()
    for shared in (0, 60_000, 50_000, 90_000):
        launch.launch(kernel, (1,), (32,), (DeviceArray(), DeviceArray()), (4, 4), (4, 2.0), shared)
    assert [shared for *_, shared in recorder.launches] == [0, 60_000, 50_000, 90_000]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA_ERROR_UNSUPPORTED_PTX_VERSION"),
        ImportError("libnvrtc.so.12: cannot open shared object file"),
        type("CompileException", (Exception,), {})("cannot open source file cuda_fp16.h"),
    ],
)
def test_missing_headers_or_an_old_driver_name_the_extra(recorder, error):
    recorder.error = error
    with pytest.raises(
        DeviceError, match=r"scale<float> of scale.cu could not be compiled: .*\n.*gpu_nn\[cuda12x\]"
    ) as e:
        launch.launch(scale(), (1,), (32,), (DeviceArray(), DeviceArray()), (4, 4), (4, 2.0))
    assert "gpu_nn[cuda13x]" in str(e.value)
    assert str(error) in str(e.value)


def test_a_bug_of_ours_is_not_taken_for_a_missing_header(recorder):
    recorder.error = KeyError("bug")
    with pytest.raises(KeyError):
        launch.launch(scale(), (1,), (32,), (DeviceArray(), DeviceArray()), (4, 4), (4, 2.0))


def test_headers_are_inlined_once_and_keep_their_lines(tmp_path, monkeypatch):
    (tmp_path / "a.cu").write_text('#include "b.cuh"\n#include "c.cuh"\n#include <cuda_fp16.h>\nint a;\n')
    (tmp_path / "b.cuh").write_text('#pragma once\n#include "c.cuh"\nint b;\n')
    (tmp_path / "c.cuh").write_text("#pragma once\nint c;\n")
    monkeypatch.setattr(sources, "source_folder", lambda: tmp_path)
    sources.source.cache_clear()
    text = sources.source("a.cu")
    sources.source.cache_clear()
    assert [text.count(f"int {name};") for name in "abc"] == [1, 1, 1]
    assert text.index("int c;") < text.index("int b;") < text.index("int a;")
    assert "#include <cuda_fp16.h>" in text
    assert '"b.cuh"' not in text.replace('#line 1 "b.cuh"', "").replace('"b.cuh"\nint b', "")
    with pytest.raises(DeviceError, match=r"the CUDA source gone.cu is missing"):
        sources.source("gone.cu")


def test_every_include_of_cuda_src_is_inlined():
    for file in sources.source_folder().glob("*.cu"):
        assert '#include "' not in sources.source(file.name)


def test_missing_sources_say_where_they_should_be(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "_PACKAGE", tmp_path / "gpu_nn")
    sources.source_folder.cache_clear()
    with pytest.raises(DeviceError, match="the CUDA sources are missing"):
        sources.source_folder()
    (tmp_path / "cuda_src").mkdir()
    assert sources.source_folder() == tmp_path / "cuda_src"
    sources.source_folder.cache_clear()
    (tmp_path / "gpu_nn" / "cuda_src").mkdir(parents=True)
    assert sources.source_folder() == tmp_path / "gpu_nn" / "cuda_src"
    sources.source_folder.cache_clear()


def test_importing_the_kernels_imports_no_cupy_and_compiles_nothing():
    code = "import sys, gpu_nn.kernels.cuda_kernels; sys.exit('cupy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_kernels_run_on_the_emulated_device(emulated_backend, monkeypatch):
    monkeypatch.setattr(launch, "source", lambda file: SOURCE)
    x, out = emulated_backend.array(np.arange(100, dtype=np.float32)), emulated_backend.zeros(100, np.float32)
    launch.launch(scale(), (4,), (32,), (x, out), (100, 100), (100, 3))
    np.testing.assert_array_equal(emulated_backend.host(out), 3 * np.arange(100))
    launch.launch(scale(), (4,), (32,), (None, out), (100, 100), (100, 5))
    np.testing.assert_array_equal(emulated_backend.host(out), 3 * np.arange(100))
    staged = Kernel("staged.cu", "staged", arrays=("float32",), numbers=(np.int32,))
    launch.launch(staged, (1,), (100,), (out,), (100,), (15_000,), 60_000)
    np.testing.assert_array_equal(emulated_backend.host(out), 3)


def test_the_device_of_an_array_tells_its_limits(emulated_backend):
    limits = launch.limits(emulated_backend.zeros(1, np.float32))
    assert limits == launch.Limits(80, 108, 163 * 1024)
