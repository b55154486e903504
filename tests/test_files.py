import os
import struct

import numpy as np
import pytest

from gpu_nn import DataError, files
from gpu_nn.errors import MissingFile, OutOfDeviceMemory
from gpu_nn.files import atomic_write, reading, write_safetensors

OLD = b"what was there before"


@pytest.fixture
def path(tmp_path):
    """A file that is there."""
    path = tmp_path / "file"
    path.write_bytes(OLD)
    return path


def untouched(path) -> bool:
    """The old file whole, and no other."""
    return path.read_bytes() == OLD and os.listdir(path.parent) == [path.name]


def write(path, content=b"new"):
    with atomic_write(path) as file:
        file.write(content)


def test_a_file_takes_the_place_of_the_one_before_when_it_is_whole(path):
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == OLD
    assert path.read_bytes() == b"new"
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(28, "No space left on device"), DataError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_full_disk_and_an_interruption_leave_the_old_file_whole_and_no_other(path, monkeypatch, error, raised):
    def fail(_):
        raise error

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(raised) as caught:
        write(path)
    if raised is DataError:
        assert str(caught.value) == f"cannot write {path}: No space left on device"
    assert untouched(path)


def test_a_write_that_stops_half_way_leaves_the_old_file_whole_and_no_other(path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write .*file: File too large"):
            write(path, bytes(1_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert untouched(path)


def test_an_error_of_the_writer_leaves_the_old_file_whole_and_no_other(path):
    with pytest.raises(TypeError):
        write(path, "text")
    assert untouched(path)


def test_a_place_that_cannot_be_written_is_named(path):
    (path.parent / "folder").mkdir()
    for place, problem in (("folder", "Is a directory"), ("file/x", "Not a directory"), ("gone/x", "No such file")):
        with pytest.raises(DataError, match=f"cannot write .*{place}: {problem}"):
            write(path.parent / place)
    assert sorted(os.listdir(path.parent)) == ["file", "folder"]


def test_a_file_has_the_permissions_of_any_other(path):
    (path.parent / "other").touch()
    write(path.parent / "new")
    assert (path.parent / "new").stat().st_mode == (path.parent / "other").stat().st_mode


def test_the_arrays_of_a_safetensors_file_are_aligned_to_eight_bytes_and_its_header_is_in_order(path):
    for name in ("a", "ab", "abc"):
        with atomic_write(path) as file:
            write_safetensors(file, {name: np.ones(3)}, {"z": "1", "a": name})
        content = path.read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        assert length % 8 == 0
        assert content[8 + length :] == np.ones(3).tobytes()
        assert content.index(b'"a":') < content.index(b'"z":')


class Damaged(DataError):
    pass


class TestReading:
    @pytest.mark.parametrize(
        ("error", "raised", "message"),
        [
            (FileNotFoundError(2, "No such file or directory"), MissingFile, "f does not exist"),
            (PermissionError(13, "Permission denied"), DataError, "f cannot be read: Permission denied"),
            (OSError("a short read"), DataError, "f cannot be read: a short read"),
            (MemoryError(), DataError, "f does not fit in memory"),
            (EOFError("the end\nof the file"), Damaged, "f ends too early: the end"),
            (ValueError(), Damaged, "f makes no sense: ValueError"),
            (KeyError("layers"), Damaged, "f makes no sense: 'layers' is missing"),
        ],
        ids=repr,
    )
    def test_an_error_names_the_file_and_the_reason(self, error, raised, message):
        invalid = {"ends too early": (EOFError,), "makes no sense": (EOFError, ValueError, KeyError)}
        with pytest.raises(DataError) as caught, reading("f", invalid, Damaged):
            raise error
        assert (type(caught.value), str(caught.value)) == (raised, message)

    @pytest.mark.parametrize(
        "error", [DataError("g is empty"), OutOfDeviceMemory("cuda:0"), TypeError("a bug")], ids=repr
    )
    def test_other_errors_pass_unchanged(self, error):
        with pytest.raises(type(error)) as caught, reading("f", {"makes no sense": (ValueError,)}, Damaged):
            raise error
        assert caught.value is error
