"""The stand-in for CuPy refuses what CuPy refuses, answers what NumPy answers, and counts what makes the host wait."""

import copy
import pickle
import time

import numpy as np
import pytest

from tests.cuda_emulator import EmulatorError, require
from tests.cuda_emulator import cupy_proxy as cupy
from tests.cuda_emulator.cupy_proxy import face

HOST = np.arange(12, dtype=np.float32).reshape(3, 4) - 4


@pytest.fixture
def x():
    return cupy.asarray(HOST)


@pytest.mark.slow
def test_the_face_is_that_of_cupy():
    """With the CuPy of that version installed, as .ci/run does; it needs no GPU."""
    import cupy as installed

    assert installed.__version__ == face.VERSION
    assert face.committed() == face.read_from_cupy()


@pytest.mark.parametrize("name", ["errstate", "insert", "block", "nonsense"])
def test_a_name_that_cupy_lacks_is_no_attribute(name):
    assert not hasattr(cupy, name)


@pytest.mark.parametrize("name", ["ElementwiseKernel", "ReductionKernel", "fuse"])
def test_what_the_proxy_does_not_supply_says_so(name):
    with pytest.raises(NotImplementedError, match=f"cupy.{name} is not supplied"):
        getattr(cupy, name)("a", "b", "c", "d")


@pytest.mark.parametrize(
    "call",
    [
        lambda x: cupy.sum(x, where=x > 0),
        lambda x: cupy.max(x, initial=0),
        lambda x: x.sum(initial=1),
        lambda x: x.max(where=True),
    ],
)
def test_a_keyword_that_cupys_function_lacks_is_refused(x, call):
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        call(x)


MIXED = {
    "operator": lambda x: x + HOST,
    "reflected operator": lambda x: HOST + x,
    "in-place operator": lambda x: x.__iadd__(HOST),
    "in-place operator of NumPy": lambda x: HOST.copy().__iadd__(x),
    "comparison": lambda x: x > HOST,
    "matrix product": lambda x: x @ HOST.T,
    "ufunc": lambda x: cupy.maximum(x, HOST),
    "NumPy's ufunc": lambda x: np.maximum(HOST, x),
    "out": lambda x: cupy.exp(x, out=HOST.copy()),
    "list of arrays": lambda x: cupy.concatenate([x, HOST]),
    "index": lambda x: x[np.array([0, 1])],
    "method": lambda x: x.dot(HOST.T),
    "ascontiguousarray": lambda x: cupy.ascontiguousarray(HOST),
    "asarray of NumPy": lambda x: np.asarray(x),
    "array of NumPy": lambda x: np.array(x),
}


@pytest.mark.parametrize("how", MIXED)
def test_numpy_arrays_do_not_mix(x, how):
    with pytest.raises(TypeError):
        MIXED[how](x)


def test_a_numpy_array_is_not_assigned(x):
    with pytest.raises(ValueError, match=r"non-scalar numpy\.ndarray"):
        x[...] = HOST
    x[0] = np.float32(7)
    assert (x.get()[0] == 7).all()


SAME = {
    "scalars of NumPy and Python": lambda xp, x: np.float32(2) * x + 1 - np.float32(3) ** 2,
    "dtypes": lambda xp, x: x.astype(xp.float16) * 2.0,
    "reductions": lambda xp, x: xp.stack(
        [x.sum(axis=1), x.max(axis=1), xp.mean(x, axis=1), x.argmax(axis=1).astype("f4")]
    ),
    "no dimensions": lambda xp, x: xp.sqrt(x.sum() ** 2),
    "indices": lambda xp, x: x[1:, ::-1][xp.asarray([1, 0])],
    "take": lambda xp, x: xp.take(x, xp.asarray([2, 0]), axis=0),
    "where": lambda xp, x: xp.where(x > 0, x, xp.exp(x)),
    "products": lambda xp, x: xp.dot(x, x.T) + xp.matmul(x, x.T) + x @ x.T + x.dot(x.T),
    "shapes": lambda xp, x: xp.concatenate([x.reshape(-1), x.T.ravel(), xp.zeros(2, x.dtype)]),
    "comparisons": lambda xp, x: (x == x) & ~(x < 0) | (x >= 2) ^ (x != 1),
    "unary": lambda xp, x: -x + abs(x) + +x,
    "remainders": lambda xp, x: x // 2 + x % 3 + 5 // (x + 0.5),
}


@pytest.mark.parametrize("what", SAME)
def test_results_are_numpys(x, what):
    expected = SAME[what](np, HOST)
    got = SAME[what](cupy, x)
    assert isinstance(got, cupy.ndarray)
    assert got.dtype == np.asarray(expected).dtype
    assert np.array_equal(got.get(), expected)


def test_reductions_and_elements_are_arrays_without_dimensions(x):
    for part in (x.sum(), x[0, 0], cupy.max(x), np.exp(x).min()):
        assert isinstance(part, cupy.ndarray)
        assert part.shape == ()


def test_in_place_operators_and_out_keep_the_array(x):
    same = x
    x += 1
    x *= cupy.ones_like(x)
    assert x is same
    assert cupy.maximum(x, 0, out=x) is same
    total = x.sum()
    address = total.data.ptr
    total -= 1
    assert total.data.ptr == address
    assert x[1:].base is not None
    x[1:] = 0
    assert (same.get()[1:] == 0).all()


def test_out_of_a_product_must_fit(x):
    right = cupy.empty((3, 3), np.float32)
    assert cupy.matmul(x, x.T, out=right) is right
    assert np.array_equal(right.get(), HOST @ HOST.T)
    for wrong in (
        cupy.empty((3, 3), np.float64),
        cupy.empty((3, 6), np.float32)[:, ::2],
        cupy.empty((3, 3), np.float32).T,
    ):
        if wrong.flags.c_contiguous and wrong.dtype == np.float32:
            continue
        for product in (cupy.matmul, cupy.dot):
            with pytest.raises(ValueError, match="out must be C-contiguous and of dtype float32"):
                product(x, x.T, out=wrong)


def test_products_of_halves_are_summed_in_float32():
    ones = cupy.ones((1, 4096), np.float16)
    assert float((ones @ ones.T)[0, 0]) == 4096


def test_new_memory_is_nan():
    for made in (cupy.empty(5), cupy.empty_like(cupy.ones(5, np.float16)), cupy.ndarray((2, 3), np.float32)):
        assert np.isnan(made.get()).all()


def test_an_assignment_with_duplicate_indices_is_refused(x):
    with pytest.raises(ValueError, match="duplicate indices"):
        x[cupy.asarray([0, 0])] = x[1:]
    x[cupy.asarray([0, 2])] = x[1:] + 0
    assert np.array_equal(x.get()[0], HOST[1])


def test_indices_out_of_bounds_are_refused(x):
    with pytest.raises(IndexError):
        x[cupy.asarray([3])]
    with pytest.raises(IndexError):
        cupy.take(x, cupy.asarray([5]), axis=0)


WAITS = {
    "float()": lambda x: float(x.sum()),
    "int()": lambda x: int(x.sum()),
    "bool()": lambda x: bool(x.any()),
    "an index": lambda x: range(100)[x.argmax()],
    ".item()": lambda x: x.sum().item(),
    ".get()": lambda x: cupy.asnumpy(x),
    ".tolist()": lambda x: x.tolist(),
    "str()": lambda x: str(x),
    "repr()": lambda x: f"{x!r}",
    "indexing by a mask": lambda x: x[x > 0],
    "cupy.nonzero()": lambda x: cupy.nonzero(x),
    "cupy.unique()": lambda x: cupy.unique(x),
    "Stream.synchronize()": lambda x: cupy.cuda.get_current_stream().synchronize(),
    "Device.synchronize()": lambda x: cupy.cuda.Device().synchronize(),
    "Event.synchronize()": lambda x: cupy.cuda.Stream.null.record().synchronize(),
}


@pytest.mark.parametrize("what", WAITS)
def test_what_the_host_waits_for_is_counted_once_with_its_place(x, what):
    before = cupy.synchronisations.count
    with cupy.synchronisations.record() as waits:
        WAITS[what](x)
    assert len(waits) == 1
    assert waits[0].startswith(f"{what} at {__file__}:")
    assert cupy.synchronisations.count == before + 1


def test_work_on_the_device_waits_for_nothing(x):
    with cupy.synchronisations.record() as waits, cupy.uploads.record() as uploads:
        y = cupy.where(x > 0, x, 0) @ x.T
        y[cupy.arange(2)] = y[:2].sum(axis=1, keepdims=True)
        x[x > 0] = 1
        cupy.cuda.get_elapsed_time(cupy.cuda.Stream.null.record(), cupy.cuda.Stream.null.record())
    assert waits == uploads == []


def test_copies_from_the_host_are_counted(x):
    with cupy.uploads.record() as uploads:
        cupy.asarray(HOST)
        cupy.array([1, 2])
        x.set(HOST)
        cupy.asarray(x)
    assert [entry.partition(" at ")[0] for entry in uploads] == ["array()", "array()", ".set()"]


def test_get_and_set_check_what_they_copy(x):
    out = np.empty_like(HOST)
    assert x.get(out=out) is out
    with pytest.raises(ValueError, match="out is float64"):
        x.get(out=np.empty((3, 4)))
    with pytest.raises(ValueError, match="not float64"):
        x.set(HOST.astype(np.float64))


def test_copies_are_copies_and_pickles_are_refused(x):
    for other in (copy.copy(x), copy.deepcopy(x), x.copy(), cupy.array(x)):
        other[...] = 0
    assert np.array_equal(x.get(), HOST)
    with pytest.raises(TypeError, match="needs a GPU"):
        pickle.dumps(x)


def test_the_array_module_of_arrays(x):
    assert cupy.get_array_module(HOST, x) is cupy
    assert cupy.get_array_module(HOST, 1) is np


def test_the_device_has_the_attributes_it_is_given():
    device = cupy.cuda.Device(0)
    assert device.compute_capability == "80"
    assert device.attributes["MaxSharedMemoryPerBlockOptin"] == 163 * 1024
    with cupy.device_attributes(MultiProcessorCount=4, ComputeCapabilityMajor=9):
        number = cupy.cuda.runtime.cudaDevAttrMultiProcessorCount
        assert cupy.cuda.runtime.deviceGetAttribute(number, 0) == 4
        assert cupy.cuda.runtime.getDeviceProperties(0)["multiProcessorCount"] == 4
        assert device.compute_capability == "90"
    assert device.attributes["MultiProcessorCount"] == 108
    with pytest.raises(ValueError, match="Nonsense"), cupy.device_attributes(Nonsense=1):
        pass
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError), cupy.cuda.Device(1):
        pass
    assert cupy.cuda.is_available()


def test_events_measure_and_streams_nest():
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        assert cupy.cuda.get_current_stream() is stream
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        time.sleep(0.01)
        end.record()
    assert cupy.cuda.get_current_stream() is cupy.cuda.Stream.null
    assert 5 < cupy.cuda.get_elapsed_time(start, end) < 5000


def test_the_generator_has_cupys_methods_only():
    generator = cupy.random.default_rng(0)
    assert np.array_equal(generator.standard_normal(3).get(), np.random.default_rng(0).standard_normal(3))
    for missing in ("permutation", "shuffle", "normal", "choice"):
        assert not hasattr(generator, missing)


def test_kernels_take_the_arrays_and_make_nobody_wait():
    require()
    code = (
        'extern "C" __global__ void scale(const float* x, float* y, float a) { y[threadIdx.x] = a * x[threadIdx.x]; }'
    )
    kernel = cupy.RawModule(code=code).get_function("scale")
    x, y = cupy.asarray(HOST.ravel()), cupy.empty(12, np.float32)
    with cupy.synchronisations.record() as waits:
        kernel((1,), (12,), (x, y, np.float32(2)))
    assert waits == []
    assert np.array_equal(y.get(), HOST.ravel() * 2)
    with pytest.raises(EmulatorError, match=r"parameter 1 .* strides"):
        kernel((1,), (12,), (x, cupy.empty((2, 12), np.float32)[:, ::2], np.float32(2)))
    with pytest.raises(EmulatorError, match=f"a block has {163 * 1024}"):
        kernel.max_dynamic_shared_size_bytes = 200 * 1024
    assert cupy.RawKernel(code, "scale").max_threads_per_block == 1024
