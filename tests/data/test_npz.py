import io
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from gpu_nn.data.memory import max_inflated_bytes
from gpu_nn.data.npz import read_npz
from gpu_nn.errors import DataError
from tests.data.files import Payload, live_pickle, mutations, npy_bytes, zip_bytes

X = np.arange(12.0).reshape(4, 3)
Y = np.array([0, 1, 1, 0])


def npz(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


@pytest.fixture
def refused(tmp_path):
    """Asserts that a file with this content is refused by name, and gives the message."""

    def refused(content: bytes) -> str:
        path = tmp_path / "a.npz"
        path.write_bytes(content)
        with pytest.raises(DataError) as error:
            read_npz(path)
        assert str(path) in str(error.value)
        return str(error.value)

    return refused


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_the_named_arrays_come_back_and_others_are_left_alone(tmp_path, save):
    fortran = np.asfortranarray(X)
    save(tmp_path / "a.npz", x=fortran, Y=Y, X_test=X[:2], y_test=np.array(["é", "b"]), other=X)
    arrays = read_npz(tmp_path / "a.npz")
    assert arrays.keys() == {"x", "y", "x_test", "y_test"}
    np.testing.assert_array_equal(arrays["x"], X)
    np.testing.assert_array_equal(arrays["y"], Y)
    assert arrays["y_test"].tolist() == ["é", "b"]


def test_pickled_objects_are_refused_and_never_unpickled(tmp_path, refused):
    sign = tmp_path / "sign"
    live_pickle(sign)
    assert "x holds pickled objects, which are refused" in refused(npz(x=np.array([Payload(sign)]), y=Y))
    assert "y holds pickled objects" in refused(npz(x=X, y=np.array([Payload(sign)])))
    assert not sign.exists()


def test_objects_within_records_are_refused(tmp_path, refused):
    records = np.array([(1, Payload(tmp_path / "sign"))], dtype=[("a", "i4"), ("b", "O")])
    assert "x holds pickled objects" in refused(npz(x=records, y=Y))
    assert not (tmp_path / "sign").exists()


def test_objects_under_other_names_are_not_even_looked_at(tmp_path):
    (tmp_path / "a.npz").write_bytes(npz(x=X, y=Y, notes=np.array([Payload(tmp_path / "sign")])))
    assert read_npz(tmp_path / "a.npz").keys() == {"x", "y"}
    assert not (tmp_path / "sign").exists()


def test_a_pickle_that_is_called_npz_is_refused_without_advice_to_trust_it(tmp_path, refused):
    message = refused(live_pickle(tmp_path / "sign"))
    assert "is not an npz file" in message
    assert "trust" not in message
    assert not (tmp_path / "sign").exists()


GOOD = npz(x=X, y=Y)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"x,y\n1,2\n", id="text"),
        pytest.param(npy_bytes((4, 3), "<f8", X.tobytes()), id="one npy array"),
        pytest.param(GOOD[:-30], id="cut short"),
        pytest.param(GOOD[: len(GOOD) // 2], id="half"),
        pytest.param(zip_bytes({"x.npy": b"no array"}), id="member that is no array"),
        pytest.param(zip_bytes({"x.npy": b""}), id="empty member"),
        pytest.param(zip_bytes({"x.npy": npy_bytes((4, 3), "<f8", X.tobytes())[:20]}), id="member within header"),
        pytest.param(zip_bytes({"x.npy": npy_bytes((4, 3), "no type", X.tobytes())}), id="no dtype"),
        pytest.param(zip_bytes({"x.npy": b"\x93NUMPY\x09\x00" + bytes(100)}), id="unknown npy version"),
        pytest.param(zip_bytes({"x.npy": npy_bytes((4, 3), "<f8", b"").replace(b"(4, 3)", b"(((((")}), id="syntax"),
        pytest.param(
            zip_bytes({"x.npy": b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"-" * 9000}), id="deep header"
        ),
    ],
)
def test_foreign_and_damaged_files_are_refused(refused, content):
    assert "is not an npz file" in refused(content)


@pytest.mark.parametrize("shape", [(5, 3), (13,), (2**40, 3), (2**62, 2**62), (-4, 3), (-4, -3)], ids=str)
def test_a_header_that_says_more_than_the_bytes_is_refused(refused, shape):
    content = zip_bytes({"x.npy": npy_bytes(shape, "<f8", X.tobytes())})
    assert "more than its bytes; the file is damaged" in refused(content)


def test_a_header_that_says_less_than_the_bytes_is_refused(refused):
    content = zip_bytes({"x.npy": npy_bytes((3, 3), "<f8", X.tobytes())})
    assert "less than its bytes; the file is damaged" in refused(content)


def test_a_directory_that_lies_about_a_members_size_costs_no_memory(refused):
    content = bytearray(zip_bytes({"x.npy": npy_bytes((2**29 - 32,), "<f8", X.tobytes())}, zipfile.ZIP_DEFLATED))
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 2**32 - 2)
    tracemalloc.start()
    message = refused(bytes(content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "more than its bytes; the file is damaged" in message
    assert peak < 1 << 20


def test_no_deflated_file_unpacks_to_more_than_the_bound(tmp_path):
    for size in (1 << 10, 1 << 20, 1 << 24):
        path = tmp_path / "packed"
        path.write_bytes(zlib.compress(bytes(size), 9))
        assert max_inflated_bytes(path) >= size


@pytest.mark.parametrize("compression", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_packings_without_that_bound_are_refused(refused, compression):
    assert "numpy.savez does not use" in refused(zip_bytes({"x.npy": npy_bytes((1,), "<f8", bytes(8))}, compression))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_changed_number_is_found_by_its_checksum(refused, save):
    content = io.BytesIO()
    save(content, x=np.random.default_rng(0).random(1000))
    damaged = bytearray(content.getvalue())
    damaged[len(damaged) // 2] ^= 1
    assert "is not an npz file with arrays x and y that can be read" in refused(bytes(damaged))


def test_an_encrypted_file_is_refused(refused):
    content = bytearray(GOOD)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    assert "encrypted" in refused(bytes(content))


def test_changed_bytes_are_read_or_refused_and_nothing_else(tmp_path):
    packed = io.BytesIO()
    np.savez_compressed(packed, x=X, y=Y)
    path = tmp_path / "a.npz"
    for content in (*mutations(GOOD, 200), *mutations(packed.getvalue(), 200)):
        path.write_bytes(content)
        try:
            read_npz(path)
        except DataError:
            continue


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.npz does not exist"):
        read_npz(tmp_path / "gone.npz")
