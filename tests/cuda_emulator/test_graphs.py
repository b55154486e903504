"""Captured streams and their graphs: what is recorded, what is refused, and that a replay is exactly the recording."""

import numpy as np
import pytest

from tests.cuda_emulator import EmulatorError, require
from tests.cuda_emulator import cupy_proxy as cupy
from tests.cuda_emulator.work import watched

SCALE = 'extern "C" __global__ void scale(const float* x, float* y, float a) { y[threadIdx.x] = a * x[threadIdx.x]; }'
HOST = np.arange(8, dtype=np.float32)


@pytest.fixture
def stream():
    made = cupy.cuda.Stream(non_blocking=True)
    with made:
        yield made


def test_captured_work_is_done_at_each_launch_and_not_before(stream):
    require()
    kernel = cupy.RawModule(code=SCALE).get_function("scale")
    x, y, z = cupy.asarray(HOST), cupy.zeros(8, np.float32), cupy.ones(8, np.float32)
    stream.begin_capture()
    assert stream.is_capturing()
    kernel((1,), (8,), (x, y, np.float32(2)))
    z += y
    cupy.multiply(z, z, out=z)
    x[2:4] = z[2:4]
    y.fill(7)
    graph = stream.end_capture()
    assert not stream.is_capturing()
    assert (y.get() == 0).all()
    assert (z.get() == 1).all()
    expected_x, expected_z = HOST.copy(), np.ones(8, np.float32)
    with watched() as works:
        for _ in range(2):
            graph.launch()
            expected_z = (expected_z + 2 * expected_x) ** 2
            expected_x[2:4] = expected_z[2:4]
    np.testing.assert_array_equal(z.get(), expected_z)
    np.testing.assert_array_equal(x.get(), expected_x)
    assert (y.get() == 7).all()
    assert [(work.name, work.grid, work.block) for work in works[:5]] == [
        ("scale", (1,), (8,)),
        ("iadd", (), ()),
        ("multiply", (), ()),
        ("copy", (), ()),
        ("fill", (), ()),
    ]
    assert [argument.shape for argument in works[0].arguments[:2]] == [(8,), (8,)]
    assert works[0].arguments[2] == np.float32(2)


REFUSED = {
    "waiting for the stream": lambda x: cupy.cuda.get_current_stream().synchronize(),
    "a copy to the host": lambda x: x.get(),
    "a number for the host": lambda x: float(x[0]),
    "a copy from the host": lambda x: cupy.asarray(HOST),
    "set": lambda x: x.set(HOST),
    "a mask": lambda x: x[x > 0],
    "random numbers": lambda x: cupy.random.default_rng(0).standard_normal(3),
    "a new array": lambda x: cupy.empty(3),
    "a new array of an operator": lambda x: x + 1,
    "a new array of a reflected operator": lambda x: 1 - x,
    "a new array of one operand": lambda x: -x,
    "a new array of a function": lambda x: cupy.exp(x),
    "a new array of a method": lambda x: x.sum(),
    "a new array like another": lambda x: cupy.empty_like(x),
    "a cast": lambda x: x.astype(np.float64),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cuda_refuses_in_a_capture_is_refused_and_spoils_it(stream, what):
    x = cupy.asarray(HOST)
    stream.begin_capture()
    with pytest.raises(EmulatorError, match="cudaErrorStreamCaptureUnsupported"):
        REFUSED[what](x)
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureInvalidated"):
        stream.end_capture()
    REFUSED[what](x)


@pytest.mark.parametrize("product", [lambda x: x @ x, lambda x: cupy.matmul(x, x, out=x), lambda x: x.dot(x)])
def test_products_of_cupy_are_refused_as_cupy_refuses_them(stream, product):
    x = cupy.zeros((3, 3), np.float32)
    stream.begin_capture()
    with pytest.raises(NotImplementedError, match="cuBLAS"):
        product(x)
    assert stream.end_capture()


def test_memory_that_was_freed_is_missed_at_the_launch(stream):
    x, y = cupy.asarray(HOST), cupy.asarray(HOST)
    stream.begin_capture()
    x[:4] += y[4:]
    graph = stream.end_capture()
    view = y[2:5]
    del y
    graph.launch()
    del view
    with pytest.raises(EmulatorError, match=r"an array \(4,\) of float32 was freed"):
        graph.launch()


def test_streams_that_cannot_be_captured():
    with pytest.raises(RuntimeError, match="legacy"):
        cupy.cuda.Stream.null.begin_capture()
    with pytest.raises(RuntimeError, match="cudaErrorStreamCaptureImplicit"):
        cupy.cuda.Stream().begin_capture()
    stream = cupy.cuda.Stream(non_blocking=True)
    with pytest.raises(RuntimeError, match="not being captured"):
        stream.end_capture()


def test_work_in_another_stream_is_not_captured(stream):
    x = cupy.asarray(HOST)
    stream.begin_capture()
    with cupy.cuda.Stream(non_blocking=True):
        x += 1
    x += 10
    graph = stream.end_capture()
    np.testing.assert_array_equal(x.get(), HOST + 1)
    graph.launch()
    np.testing.assert_array_equal(x.get(), HOST + 11)
