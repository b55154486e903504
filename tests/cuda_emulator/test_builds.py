"""What NVRTC would refuse is refused, and a cached build is used exactly while nothing that it saw has changed."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.cuda_emulator import (
    CompilationError,
    EmulatorError,
    RawModule,
    ToolchainMissing,
    compiler,
    require,
    requirement,
)

require()

ROOT = Path(__file__).parents[2]
WRITE = 'extern "C" __global__ void write(float* y) { y[0] = VALUE; }'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_EMULATOR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kernels_in(cache):
    return sorted(path for path in cache.iterdir() if path.name.startswith("kernels-"))


def value(**module):
    y = np.zeros(1, np.float32)
    RawModule(**({"code": WRITE} | module)).get_function("write")((1,), (1,), (y,))
    return y[0]


def test_macros_and_include_folders_reach_the_compiler(tmp_path):
    (tmp_path / "value.cuh").write_text("#define VALUE HALF * 2")
    assert value(options=("-DVALUE=1.5f", "-std=c++17", "-arch=sm_90", "--fmad=true")) == 1.5
    assert value(options=("-D", "VALUE=2.5f")) == 2.5
    code = '#include "value.cuh"\n' + WRITE
    for include in (("-I", str(tmp_path)), (f"-I{tmp_path}",), (f"--include-path={tmp_path}",)):
        assert value(code=code, options=("--define-macro=HALF=4", *include)) == 8


def test_an_option_that_nvrtc_would_not_know_is_refused():
    with pytest.raises(EmulatorError, match="'-O3'"):
        value(options=("-DVALUE=1", "-O3"))


def test_a_changed_header_is_a_new_build_and_an_unchanged_one_is_not(cache, tmp_path):
    header = tmp_path / "value.cuh"
    module = {"code": '#include "value.cuh"\n' + WRITE, "options": (f"-I{tmp_path}",)}
    header.write_text("#define VALUE 1")
    assert value(**module) == 1
    (first,) = kernels_in(cache)
    built = first.stat().st_mtime_ns
    assert value(**module) == 1
    assert [path.stat().st_mtime_ns for path in kernels_in(cache)] == [built]
    header.write_text("#define VALUE 2")
    assert value(**module) == 2
    assert len(kernels_in(cache)) == 2


def test_each_mode_is_a_build_of_its_own_and_both_checks_share_one(cache):
    for mode in ("plain", "address", "thread"):
        assert value(options=("-DVALUE=3",), mode=mode) == 3
    assert len(kernels_in(cache)) == 2


def test_of_parallel_builders_of_one_module_one_builds_and_the_others_wait(cache, tmp_path):
    compiler_path, _ = compiler.compiler()
    calls = tmp_path / "calls"
    counting = tmp_path / "g++"
    # Slow enough for all three to want the library while it is being built.
    slowly = 'case "$*" in *" -c "*) sleep 1.5 ;; esac'
    counting.write_text(f'#!/bin/sh\necho "$*" >> "{calls}"\n{slowly}\nexec "{compiler_path}" "$@"\n')
    counting.chmod(0o755)
    program = (
        "import numpy as np; from tests.cuda_emulator import RawModule; y = np.zeros(1, np.float32);"
        f"RawModule(code={WRITE!r}, options=('-DVALUE=7',)).get_function('write')((1,), (1,), (y,)); assert y[0] == 7"
    )

    def build(_):
        environment = os.environ | {"CXX": str(counting)}
        return subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=False).returncode

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(build, range(3))) == [0, 0, 0]
    assert len(kernels_in(cache)) == 1
    assert not [path for path in cache.iterdir() if path.is_dir()], "nothing half-built stays"
    assert len([call for call in calls.read_text().splitlines() if " -c " in call]) == 1


@pytest.mark.parametrize(
    "code",
    [
        "#include <cstdint>\n",
        "#include <cmath>\n",
        "__device__ float f() { return INFINITY; }",
        "__device__ float f() { return FLT_MAX; }",
        "__device__ float f(float x) { return std::exp(x); }",
        "__device__ uint32_t f() { return 0; }",
    ],
)
def test_what_nvrtc_does_not_declare_is_not_declared(code):
    with pytest.raises(CompilationError):
        value(code=code + WRITE, options=("-DVALUE=1",))


def test_a_compiler_error_names_the_line():
    with pytest.raises(CompilationError, match=r"module\.cu:2:.*'undeclared'"):
        value(code='\nextern "C" __global__ void write(float* y) { y[0] = undeclared; }')


def test_a_name_that_is_no_kernel_is_an_error():
    with pytest.raises(CompilationError, match="missing"):
        RawModule(code=WRITE, options=("-DVALUE=1",)).get_function("missing")
    with pytest.raises(CompilationError):
        RawModule(code="__device__ int f(int x) { return x; }", name_expressions=["f"]).compile()


def test_kernels_with_one_shared_name_in_two_modules_keep_apart():
    code = """extern __shared__ float buffer[];
    __global__ void kernel(float* y) {
        __shared__ float own[4];
        own[0] = buffer[0] = SCALE;
        __syncthreads();
        y[0] = own[0] + buffer[0];
    }"""
    ys = [np.zeros(1, np.float32) for _ in range(2)]
    modules = [RawModule(code=code, options=(f"-DSCALE={scale}",), name_expressions=["kernel"]) for scale in (1, 10)]
    for module, y in [*zip(modules, ys, strict=True)] * 2:
        module.get_function("kernel")((1,), (1,), (y,), shared_mem=16)
    assert [y[0] for y in ys] == [2, 20]


def test_launches_from_several_threads_do_not_mix():
    code = """extern "C" __global__ void sum(const float* x, float* y) {
        __shared__ float tile[64];
        float total = 0;
        for (int round = 0; round < 50; ++round) {
            tile[threadIdx.x] = x[threadIdx.x];
            __syncthreads();
            for (int i = 0; i < 64; ++i) total += tile[i];
            __syncthreads();
        }
        y[threadIdx.x] = total;
    }"""
    kernel = RawModule(code=code).get_function("sum")

    def launch(number):
        x, y = np.full(64, number, np.float32), np.zeros(64, np.float32)
        kernel((1,), (64,), (x, y))
        return (y == number * 64 * 50).all()

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(launch, range(40)))


def test_the_mode_and_order_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("CUDA_EMULATOR_MODE", "thread")
    monkeypatch.setenv("CUDA_EMULATOR_ORDER", "both")
    module = RawModule(code=WRITE)
    assert (module.mode, module.order) == ("thread", "both")
    assert RawModule(code=WRITE, mode="plain").mode == "plain"
    monkeypatch.setenv("CUDA_EMULATOR_MODE", "fast")
    with pytest.raises(ValueError, match="'fast' is none of plain, address, thread"):
        RawModule(code=WRITE)


def test_a_test_selection_runs_in_a_mode(tmp_path):
    selection = tmp_path / "test_selected.py"
    selection.write_text(
        "import numpy as np\nfrom tests.cuda_emulator import RawModule\n"
        "def test_race():\n"
        "    code = 'extern \"C\" __global__ void all(float* y) { y[0] = threadIdx.x; }'\n"
        "    RawModule(code=code).get_function('all')((1,), (32,), (np.zeros(1, np.float32),))\n"
    )
    command = [sys.executable, "-m", "tests.cuda_emulator"]
    options = [
        "--",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        f"pythonpath={ROOT}",
        "--rootdir",
        str(tmp_path),
        str(selection),
    ]
    plain, thread = (
        subprocess.run([*command, mode, *options], cwd=ROOT, capture_output=True, text=True, check=False)
        for mode in ("plain", "thread")
    )
    assert plain.returncode == 0, plain.stdout + plain.stderr
    assert thread.returncode == 1
    assert "data race in parameter 0" in thread.stdout


def test_without_a_compiler_tests_skip_and_say_why_but_fail_under_ci(monkeypatch):
    monkeypatch.setattr(requirement, "missing_tools", lambda: ["g++"])
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"needs g\+\+ on PATH"):
        require()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"needs g\+\+ on PATH"):
        require()


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiler.compiler.cache_clear()
    try:
        with pytest.raises(ToolchainMissing, match="not found: no-such-compiler"):
            compiler.compiler()
    finally:
        compiler.compiler.cache_clear()


@pytest.mark.parametrize("refused", [{"path": "kernels.cubin"}, {"enable_cooperative_groups": True}, {"jitify": True}])
def test_what_is_not_emulated_is_refused(refused):
    with pytest.raises(EmulatorError):
        RawModule(**({"code": WRITE} | refused))


def test_switching_by_the_c_library_gives_the_same_results(cache, tmp_path):
    """What other processors than x86-64 use, forced here."""
    program = """
import numpy as np
from tests.cuda_emulator import EmulatorError, RawModule, compiler
compiler.COMMON_FLAGS = (*compiler.COMMON_FLAGS, "-DCUDA_EMULATOR_PORTABLE_CONTEXTS")
code = '''extern "C" __global__ void sum(float* y, int n) {
    __shared__ float tile[64];
    if (threadIdx.x >= n) return;
    tile[threadIdx.x] = __shfl_xor_sync(~0u, y[threadIdx.x], 1);
    __syncthreads();
    y[threadIdx.x] = tile[63 - threadIdx.x];
}'''
kernel = RawModule(code=code, order="both").get_function("sum")
y = np.arange(64, dtype=np.float32)
kernel((1,), (64,), (y, np.int32(64)))
assert (y == (np.arange(64) ^ 1)[::-1]).all()
try:
    kernel((1,), (64,), (y, np.int32(32)))
except EmulatorError as error:
    assert "divergent barrier" in str(error)
else:
    raise AssertionError
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
