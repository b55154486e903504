"""linear_softmax_cross_entropy_with_grad where the logits of all rows would not fit."""

import subprocess
import sys

import numpy as np
import pytest

from gpu_nn import functional as F
from gpu_nn.device import CPU
from tests.cuda_emulator import cupy_proxy
from tests.cuda_emulator.cupy_proxy import cuda
from tests.cuda_emulator.device import emulated_device
from tests.cuda_emulator.work import watched

RANDOM = np.random.default_rng(3)
N, INPUTS, M = 300, 6, 400
A, W, B = (RANDOM.standard_normal(shape).astype(np.float32) for shape in ((N, INPUTS), (INPUTS, M), (M,)))
Y = RANDOM.integers(0, M, N)


def chunk_of(works):
    """The most rows of logits that a loss kernel was launched on."""
    losses = [work for work in works if work.name.startswith("softmax_cross_entropy")]
    return max(work.arguments[0].shape[0] for work in losses), len(losses)


@pytest.fixture(params=[False, True], ids=["plain", "nvmath"])
def device(request):
    with emulated_device(nvmath=request.param) as found:
        yield found


@pytest.mark.parametrize(
    ("free", "rows", "chunks"),
    [
        (1 << 40, 300, 1),  # more than enough
        (4 * 200 * M * 4, 128, 3),  # whole tiles of the product
        (4 * 100 * M * 4, 100, 3),  # less than a tile
        (4 * M * 4 - 1, 1, 300),  # not even a row in a quarter of it: one at a time
    ],
)
def test_chunks_are_of_the_memory_that_is_free(device, monkeypatch, free, rows, chunks):
    monkeypatch.setattr(cuda.Device, "mem_info", property(lambda self: (free // 3, 2 * free)))
    monkeypatch.setattr(cuda.MemoryPool, "free_bytes", lambda self: free - free // 3)
    arrays = [device.asarray(array) for array in (A, W, B, Y)]
    with watched() as works, cupy_proxy.uploads.record() as copies:
        found = F.linear_softmax_cross_entropy_with_grad(*arrays)
    assert copies == []
    assert chunk_of(works) == (rows, chunks)
    for one, other in zip(found, F.linear_softmax_cross_entropy_with_grad(A, W, B, Y), strict=True):
        np.testing.assert_allclose(one.get(), other, rtol=1e-4, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize("biased", [True, False])
def test_nothing_of_the_size_of_all_logits_is_ever_held(device, biased):
    arrays = [device.asarray(array) for array in (A, W, B, Y)]
    if not biased:
        arrays[2] = None
    with watched() as works:
        F.linear_softmax_cross_entropy_with_grad(*arrays, chunk_rows=64)
    used = [argument for work in works for argument in work.arguments if hasattr(argument, "nbytes")]
    assert max(array.nbytes for array in used) == 64 * M * 4
    # The gradient is written over the logits: one matrix of that size, and no other.
    assert len({array.address for array in used if array.nbytes == 64 * M * 4}) == 1


def test_on_the_cpu_a_chunk_has_rows_enough_for_the_weight_gradient():
    assert CPU.free_bytes() is None
    for n, inputs, m, rows in ((10**6, 256, 128_000, 1024), (10**6, 4, 10, 419_328), (100, 256, 10, 100)):
        assert F._chunk_rows(CPU, n, inputs, m * 4) == rows
    assert F._chunk_rows(CPU, 10**6, 10**6, 2**20 * 4) == 128  # never more than half a GiB
    assert F._chunk_rows(CPU, 10**6, 1, 2**31 * 8) == 1


PROGRAM = """
import numpy as np
from gpu_nn import functional as F

def status(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))

n, m, inputs = 8192, 128_000, 256
random = np.random.default_rng(0)
a, w = (random.standard_normal(shape, dtype=np.float32) for shape in ((n, inputs), (inputs, m)))
w *= np.float32(0.1)
b, y = np.zeros(m, np.float32), random.integers(0, m, n)
F.linear_softmax_cross_entropy_with_grad(a[:8], w[:, :1000].copy(), b[:1000], y[:8] % 1000)  # what is loaded once
before = status("VmRSS")
outputs = F.linear_softmax_cross_entropy_with_grad(a, w, b, y)
assert np.isfinite(float(outputs[0]))
print(status("VmHWM") - before - sum(output.nbytes for output in outputs))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_8192_rows_of_128000_classes_take_less_than_a_gigabyte_on_the_cpu():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 10**9
