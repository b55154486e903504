import gzip
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from gpu_nn.data.idx import read_idx, read_idx_folder, read_idx_images
from gpu_nn.errors import DataError
from tests.data.files import idx_bytes, mutations, write_idx_pair

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
LABELS = np.array([2, 0, 1], np.uint8)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "float32", "float64"])
def test_an_array_comes_back_as_it_was_written(tmp_path, dtype):
    array = (IMAGES - 30.0).astype(dtype) if dtype != "uint8" else IMAGES
    path = tmp_path / "a.idx"
    path.write_bytes(idx_bytes(array))
    read = read_idx(path)
    assert read.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("name", ["a.idx", "a.idx.gz"])
def test_packed_files_are_known_by_their_bytes_whatever_their_name(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(idx_bytes(IMAGES)))
    np.testing.assert_array_equal(read_idx(tmp_path / name), IMAGES)
    (tmp_path / name).write_bytes(idx_bytes(IMAGES))
    np.testing.assert_array_equal(read_idx(tmp_path / name), IMAGES)


GOOD = idx_bytes(IMAGES)
PACKED = gzip.compress(GOOD, mtime=0)  # the same bytes, so the same test names, in every process of a run


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an IDX file"),
        (b"\0\0", "is not an IDX file"),
        (b"\x89PNG" + GOOD[4:], r"not an IDX file: it begins with 89 50 4e 47, expected 00 00 type rank"),
        (b"\0\0\x07\3" + GOOD[4:], "is not an IDX file"),
        (b"\0\0\x08\0" + GOOD[4:], "is not an IDX file"),
        (b"\0\0\x08\xff" + GOOD[4:], "is not an IDX file"),
        (GOOD[:10], "ends within its header"),
        (GOOD[:-1], "says 3×4×5, 60 bytes, but holds 59"),
        (GOOD + b"\0", r"says 3×4×5, 60 bytes, but holds more"),
        (PACKED[:-12], "Compressed file ended before"),
        (PACKED[:15] + b"\xff\xff\xff", "cannot be read"),
        (gzip.compress(GOOD[:-1], mtime=0), "but holds 59"),
        (PACKED[:-8] + bytes(8), "CRC check failed"),
    ],
)
def test_foreign_and_damaged_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "a.idx"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        read_idx(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gz"])
@pytest.mark.parametrize("shape", [(2**32 - 1, 2**10), (2**32 - 1,) * 8], ids=["4 TiB", "beyond 64 bits"])
def test_a_header_that_claims_terabytes_costs_no_memory(tmp_path, pack, shape):
    path = tmp_path / "a.idx"
    path.write_bytes(pack(idx_bytes(IMAGES, shape)))
    tracemalloc.start()
    with pytest.raises(DataError, match="cannot hold more than"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_dimensions_beyond_all_counting_are_refused_where_one_of_them_is_0(tmp_path):
    (tmp_path / "a.idx").write_bytes(idx_bytes(np.zeros(0, np.uint8), (0, 2**32 - 1, 2**32 - 1, 8)))
    with pytest.raises(DataError, match="no array has such dimensions"):
        read_idx(tmp_path / "a.idx")


def test_a_packed_file_costs_no_more_memory_than_it_unpacks_to(tmp_path):
    path = tmp_path / "a.idx.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros(1 << 20, np.uint8), (1 << 29,))))
    # The header could be true as far as the file's size tells, were the rest packed as well as can be.
    path.write_bytes(path.read_bytes() + gzip.compress(np.random.default_rng(0).bytes(1 << 20)))
    tracemalloc.start()
    with pytest.raises(DataError, match="is not whole"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 25


def test_changed_bytes_are_read_or_refused_and_nothing_else(tmp_path):
    path = tmp_path / "a.idx"
    for content in (*mutations(GOOD, 150), *mutations(PACKED, 150)):
        path.write_bytes(content)
        try:
            read_idx(path)
        except DataError:
            continue


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.idx does not exist"):
        read_idx(tmp_path / "gone.idx")
    with pytest.raises(DataError, match=r"cannot be read: .*directory"):
        read_idx(tmp_path)


def test_a_folder_gives_its_pairs_by_name(tmp_path):
    write_idx_pair(tmp_path, "train", IMAGES, LABELS)
    write_idx_pair(tmp_path, "t10k", IMAGES[:2], LABELS[:2])
    pairs = read_idx_folder(tmp_path)
    assert pairs.keys() == {"train", "t10k"}
    np.testing.assert_array_equal(pairs["t10k"][0], IMAGES[:2])
    np.testing.assert_array_equal(pairs["train"][1], LABELS)


def test_a_file_that_is_there_packed_and_unpacked_is_one_file(tmp_path):
    write_idx_pair(tmp_path, "train", IMAGES, LABELS)
    plain = tmp_path / "train-images-idx3-ubyte"
    plain.with_name(plain.name + ".gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert read_idx_folder(tmp_path).keys() == {"train"}


def test_images_are_read_without_labels(tmp_path):
    write_idx_pair(tmp_path, "train", IMAGES, LABELS)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    np.testing.assert_array_equal(read_idx_images(tmp_path)["train"], IMAGES)
    with pytest.raises(DataError, match="holds train-images-idx3-ubyte, but no train-labels file"):
        read_idx_folder(tmp_path)


def test_labels_that_do_not_match_the_images_are_refused(tmp_path):
    write_idx_pair(tmp_path, "train", IMAGES, LABELS[:2])
    with pytest.raises(DataError, match=r"has 3 images, train-labels-idx1-ubyte is \(2,\)"):
        read_idx_folder(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no IDX images; expected files such as"):
        read_idx_folder(Path(tmp_path))
