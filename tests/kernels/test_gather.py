"""A batch's rows, against NumPy's own indexing."""

import numpy as np
import pytest

INTEGERS = ("uint8", "int32", "int64")
CASTS = [
    *((source, out) for source in INTEGERS for out in (source, "float32", "float64", "int32", "int64")),
    *(("bool", out) for out in ("bool", "float32", "float64")),
    *(("float16", out) for out in ("float16", "float32", "float64")),
    *((source, out) for source in ("float32", "float64") for out in ("float32", "float64")),
    ("float32", "float16"),
]

# Every residue of a pack of up to 16 elements, the pixels of two kinds of image, and a row longer than a block's tile.
WIDTHS = (*range(1, 20), 32, 33, 64, 784, 3072, 4099)


def numbers(dtype, shape, seed=0):
    random = np.random.default_rng(seed)
    if dtype == "bool":
        return random.random(shape) < 0.5
    if dtype.startswith("float"):
        return random.normal(0, 100, shape).astype(dtype)
    return random.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def gathered(backend, source, rows, dtype):
    out = backend.array(np.zeros((len(rows), *source.shape[1:]), dtype))
    backend.kernels.gather(backend.array(source), backend.array(np.asarray(rows, np.int64)), out)
    return backend.host(out)


@pytest.mark.parametrize(("source", "out"), dict.fromkeys(CASTS))
def test_every_cast_is_numpys(backend, source, out):
    for width in (1, 7, 16):
        data = numbers(source, (30, width))
        rows = np.random.default_rng(1).integers(0, 30, 101)
        np.testing.assert_array_equal(gathered(backend, data, rows, out), data[rows].astype(out))


@pytest.mark.parametrize(("source", "out"), [("uint8", "float32"), ("float32", "float32"), ("float64", "float64")])
@pytest.mark.parametrize("width", WIDTHS)
def test_every_width(backend, width, source, out):
    data = numbers(source, (11, width))
    for n in (1, 2, 5, 33):
        rows = np.random.default_rng(n).integers(0, 11, n)
        np.testing.assert_array_equal(gathered(backend, data, rows, out), data[rows].astype(out))


@pytest.mark.parametrize("n", [0, 1, 255, 256, 1023, 1024, 1025, 5000])
def test_labels_are_a_vector(backend, n):
    data = numbers("int64", 77)
    rows = np.random.default_rng(n).integers(0, 77, n)
    np.testing.assert_array_equal(gathered(backend, data, rows, "int64"), data[rows])


def test_rows_may_repeat_and_come_in_any_order(backend):
    data = numbers("float32", (4, 6))
    rows = [3, 3, 3, 0, 2, 3, 0]
    np.testing.assert_array_equal(gathered(backend, data, rows, "float32"), data[rows])


def test_unaligned_views_give_the_same_and_touch_nothing_else(backend):
    data, rows = numbers("float32", (9, 8)), np.array([8, 0, 3, 3, 7])
    for shift in range(5):
        for other in range(5):
            memory, spare = np.zeros(9 * 8 + 8, np.float32), np.full(5 * 8 + 8, 7, np.float32)
            memory[shift : shift + data.size] = data.reshape(-1)
            memory, spare = backend.array(memory), backend.array(spare)
            view = memory[shift : shift + data.size].reshape(data.shape)
            backend.kernels.gather(view, backend.array(rows), spare[other : other + 40].reshape(5, 8))
            host = backend.host(spare)
            np.testing.assert_array_equal(host[other : other + 40].reshape(5, 8), data[rows])
            assert (np.delete(host, np.arange(other, other + 40)) == 7).all()


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_a_batch_begins_where_the_device_says(backend, dtype):
    data = numbers(dtype, (40, 3) if dtype == "float32" else 40)
    order = np.random.default_rng(2).permutation(40)
    source, rows, begin = backend.array(data), backend.array(order), backend.array(np.zeros(1, np.int64))
    for first, n in ((0, 16), (16, 16), (32, 8), (39, 1), (0, 40)):
        out = backend.array(np.zeros((n, *data.shape[1:]), dtype))
        begin.fill(first)
        backend.kernels.gather(source, rows, out, begin)
        np.testing.assert_array_equal(backend.host(out), data[order[first : first + n]])


def test_rows_lie_beyond_four_gigabytes(backend):
    """Memory that nobody has written takes no room, so that a source of 5 GB costs nothing here."""
    width, n = 1 << 20, 5000
    source = backend.zeros((n, width), np.uint8)
    source[n - 1, :4] = 9
    out = backend.array(np.ones((2, width), np.float32))
    backend.kernels.gather(source, backend.array(np.array([n - 1, 0])), out)
    host = backend.host(out)
    assert host.sum() == 36
    assert (host[0, :4] == 9).all()
