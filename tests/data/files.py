"""Files for the tests of readers: good ones, and the parts that bad ones are made of."""

import io
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np

_IDX_TYPES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D, "float64": 0x0E}


def idx_bytes(array: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    """`array` as an IDX file, whose header says `shape` when that is given."""
    shape = array.shape if shape is None else shape
    header = bytes([0, 0, _IDX_TYPES[array.dtype.name], len(shape)]) + struct.pack(f">{len(shape)}I", *shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_idx_pair(folder: Path, name: str, images: np.ndarray, labels: np.ndarray) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}-images-idx{images.ndim}-ubyte").write_bytes(idx_bytes(images))
    (folder / f"{name}-labels-idx{labels.ndim}-ubyte").write_bytes(idx_bytes(labels))


def npy_bytes(shape: tuple[int, ...], descr: str, body: bytes) -> bytes:
    """An npy file whose header says `shape` and `descr`, whatever its body is."""
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def zip_bytes(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, body in members.items():
            archive.writestr(zipfile.ZipInfo(name), body, compression)  # ZipInfo: without the time of day
    return content.getvalue()


class Payload:
    """An object whose unpickling creates the file `path`: the sign that a reader has run code from a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def live_pickle(path: Path) -> bytes:
    """The pickle of a Payload for `path`, proved to do what it says."""
    content = pickle.dumps(Payload(path))
    pickle.loads(content)
    assert path.exists()
    path.unlink()
    return content


def mutations(content: bytes, count: int, seed: int = 0) -> list[bytes]:
    """`content` with a few bytes changed, or cut short, at random."""
    random = np.random.default_rng(seed)
    changed = []
    for i in range(count):
        array = bytearray(content)
        for place in random.integers(0, len(content), random.integers(1, 4)):
            array[place] = random.integers(0, 256)
        changed.append(bytes(array[: random.integers(0, len(content))] if i % 4 == 0 else array))
    return changed
