import os
import tracemalloc

import numpy as np
import pytest

from gpu_nn.data import read, read_inputs
from gpu_nn.data.npy import NpyReader, read_npy
from gpu_nn.errors import DataError
from tests.data.files import Payload, idx_bytes, mutations, npy_bytes

X = np.random.default_rng(0).normal(size=(20, 3))
Y = np.arange(20) % 2


@pytest.fixture
def npy(tmp_path):
    """Writes an array, or bytes, to a file and gives its name."""

    def npy(content, name="x.npy") -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            np.save(path, content)
        return str(path)

    return npy


def rows_of(path):
    """All rows of the file, by the reader of some."""
    rows = NpyReader(path)
    return rows[0 : len(rows)] if rows.ndim else None


@pytest.mark.parametrize("x", [X, np.asfortranarray(X), X[:0], X.astype(">f4"), np.array(3.0)], ids=str)
def test_an_array_comes_back(tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    found = read_npy(tmp_path / "x.npy")
    np.testing.assert_array_equal(found, x)
    assert found.dtype == x.dtype


IMAGES = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


@pytest.mark.parametrize(
    "x", [X, X[:0], X[:, 0], X.astype(">f4"), IMAGES, np.array(["a", "bcd"])], ids=lambda x: f"{x.shape} {x.dtype}"
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_some_rows_of_an_array_are_read(tmp_path, x, order):
    np.save(tmp_path / "x.npy", np.asarray(x, order=order))
    rows = NpyReader(tmp_path / "x.npy")
    assert (rows.shape, rows.dtype, rows.ndim, len(rows)) == (x.shape, x.dtype, x.ndim, len(x))
    for start in range(len(x) + 1):
        for stop in range(start, len(x) + 1):
            for some in (rows, rows.reopen()):
                some.will_need(start, stop)
                np.testing.assert_array_equal(some[start:stop], x[start:stop])
                some.release(start, stop)


def test_a_file_that_is_cut_short_or_changed_while_it_is_read_is_an_error(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, X)
    rows = NpyReader(path)
    os.truncate(path, path.stat().st_size - 1)
    np.testing.assert_array_equal(rows[0:19], X[:19])
    with pytest.raises(DataError, match=r"x\.npy was cut short while it was read"):
        rows[19:20]
    np.save(path, X[:5])
    with pytest.raises(DataError, match=r"x\.npy was changed while it was read"):
        rows.reopen()


@pytest.mark.parametrize("labels", [Y, np.array(["cat", "dog"])[Y]], ids=["numbers", "names"])
def test_the_target_of_an_array_is_a_file_beside_it(npy, labels):
    data = read(npy(X), test_last=5, target=npy(labels, "y.npy"))
    np.testing.assert_array_equal(data.x, X[:-5])
    np.testing.assert_array_equal(data.classes[data.y_test], labels[-5:])


def test_idx_files_may_stand_for_npy_files(npy):
    images = npy(idx_bytes(X.astype(np.float32).reshape(20, 3, 1)), "images")
    data = read(images, test_last=5, target=npy(idx_bytes(Y.astype(np.uint8)), "labels"))
    np.testing.assert_array_equal(data.x, X[:-5].astype(np.float32))
    np.testing.assert_array_equal(data.y, Y[:-5])


@pytest.mark.parametrize("column", [1, "1", -2, "-2"])
def test_the_target_of_an_array_may_be_a_column_of_it(npy, column):
    source = npy(np.insert(X[:, :2], 1, Y, axis=1))
    data = read(source, test_last=5, target=column)
    np.testing.assert_array_equal(data.x, X[:-5, :2])
    np.testing.assert_array_equal(data.y, Y[:-5])
    np.testing.assert_array_equal(read_inputs(source, column, 2), X[:, :2])


def test_prediction_needs_no_labels(npy):
    np.testing.assert_array_equal(read_inputs(npy(X)), X)
    # The column that was the target in training is not there.
    np.testing.assert_array_equal(read_inputs(npy(X), "1", 3), X)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (None, r"x\.npy holds one array, without labels: name the file of the labels"),
        ("gone.npy", r"the target gone\.npy of .*x\.npy does not exist; expected a file of labels, or a column number"),
        (3, r"x\.npy has shape \(20, 3\); there is no column 3, the target"),
        (0, r"x\.npy: column 0\[0\] is .*, not a class"),
    ],
)
def test_a_target_that_is_none_is_refused(npy, target, message):
    with pytest.raises(DataError, match=message):
        read(npy(X), target=target)


def test_labels_that_do_not_fit_are_refused(npy, tmp_path):
    with pytest.raises(
        DataError, match=r"y\.npy has shape \(19,\); expected \(20,\), one label for each row of .*x\.npy"
    ):
        read(npy(X), target=npy(Y[:-1], "y.npy"))
    (tmp_path / "y.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"the target .*y\.csv of .*x\.npy is a CSV file; expected npy or IDX"):
        read(npy(X), target=str(tmp_path / "y.csv"))


def test_inputs_are_held_to_the_same_rules(npy):
    with pytest.raises(DataError, match=r"its array\[4, 1\] is nan"):
        read_inputs(npy(np.where(X[4, 1] == X, np.nan, X)))


def test_pickled_objects_are_refused_and_never_unpickled(npy, tmp_path):
    objects = np.array([Payload(tmp_path / "sign")])
    np.save(tmp_path / "x.npy", objects)
    for reader in (read_npy, rows_of):
        with pytest.raises(DataError, match=r"x\.npy holds pickled objects, which are refused"):
            reader(tmp_path / "x.npy")
    assert not (tmp_path / "sign").exists()


@pytest.mark.parametrize("reader", [read_npy, rows_of])
@pytest.mark.parametrize("shape", [(21, 3), (2**40, 3), (2**62, 2**62), (-4, 3), (-4, -3), (19, 3)], ids=str)
def test_a_header_that_lies_is_refused_and_costs_no_memory(npy, tmp_path, shape, reader):
    npy(npy_bytes(shape, "<f8", X.tobytes()))
    than = "less" if shape == (19, 3) else "more"
    tracemalloc.start()
    with pytest.raises(DataError, match=f"{than} than its bytes; the file is damaged"):
        reader(tmp_path / "x.npy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("reader", [read_npy, rows_of])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((0, 2**61), "<f8"), ((2**40, 0, 2**40), "|u1"), ((2**64, 0), "<f8"), ((10**9,), "|S0"), ((10**9,), "<U0")],
)
def test_a_header_that_says_much_of_nothing_is_refused(npy, tmp_path, shape, dtype, reader):
    npy(npy_bytes(shape, dtype, b""))
    with pytest.raises(DataError, match="more than its bytes; the file is damaged"):
        reader(tmp_path / "x.npy")


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0), (255, 255)], ids=str)
def test_a_header_that_says_it_is_long_costs_no_memory(npy, tmp_path, version):
    name = npy(b"\x93NUMPY" + bytes(version) + b"\xff\xff\xff\x7f" + bytes(100))
    tracemalloc.start()
    with pytest.raises(DataError, match="its header says that it has"):
        read_npy(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=str)
def test_every_version_of_the_format_is_read(tmp_path, version):
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array(file, X, version)
    np.testing.assert_array_equal(read_npy(tmp_path / "x.npy"), X)


def test_what_python_2_wrote_is_read_without_a_warning(npy, tmp_path):
    content = npy_bytes((2, 3), "<f8", np.arange(6.0).tobytes()).replace(b"(2, 3)", b"(2L,3)")
    np.testing.assert_array_equal(read_npy(tmp_path / npy(content)), np.arange(6.0).reshape(2, 3))


def test_a_name_too_long_for_any_file_is_refused(npy):
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        read("x" * 5000)
    with pytest.raises(DataError, match="does not exist; expected a file of labels"):
        read(npy(X), target="y" * 5000)


def test_changed_bytes_are_read_or_refused_and_nothing_else(npy, tmp_path):
    good = (tmp_path / "x.npy", np.save(tmp_path / "x.npy", X))[0].read_bytes()
    for content in mutations(good[:200], 300):
        npy(content + good[200:])
        for reader in (read_npy, rows_of):
            try:
                reader(tmp_path / "x.npy")
            except DataError:
                continue
