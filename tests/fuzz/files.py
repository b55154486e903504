"""Data files of each format: valid ones, and random ones with a false header, wrong names or wrong values."""

import gzip
import io
import struct
import zipfile
from random import Random
from typing import Any

import numpy as np

from tests.data.files import idx_bytes, npy_bytes, zip_bytes
from tests.fuzz.mutations import extreme, size

_X = np.arange(24.0).reshape(8, 3) / 7
_Y = np.arange(8) % 2
_IMAGES = np.arange(32, dtype=np.uint8).reshape(8, 2, 2)
_LABELS = _Y.astype(np.uint8)

_DESCRIPTIONS = (
    *("<f8", "|u1", "<i8", "<f4", ">i2", "<f2", "|b1", "<c16", "<f16", "<M8[ns]", "<U3", "|S3", "|O", "no"),
    *("<U0", "|S0", "|V0", "|V8", "<U999999999", "|S2147483647"),
)


def npy() -> list[bytes]:
    return [_npy(_X), _npy(np.asfortranarray(_X)), _npy(_LABELS), _npy(np.array(["a", "é", "b"]))]


def malformed_npy(random: Random) -> bytes:
    shape = tuple(size(random) * random.choice((1, 1, 1, 1, -1)) for _ in range(random.choice((0, 1, 2, 2, 3, 40))))
    return npy_bytes(shape, random.choice(_DESCRIPTIONS), random.randbytes(random.choice((0, 8, 24, 64, 192))))


def npz() -> list[bytes]:
    files = []
    for save in (np.savez, np.savez_compressed):
        content = io.BytesIO()
        save(content, x=_X, y=_Y, x_test=_X[:3], y_test=_Y[:3])
        files.append(content.getvalue())
    return files


def malformed_npz(random: Random) -> bytes:
    packing = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    x = random.choice((_npy(_X), malformed_npy(random), npy_bytes((size(random),), "<f8", bytes(1 << 20))))
    y = random.choice((_npy(_Y), malformed_npy(random)))
    content = bytearray(zip_bytes({"x.npy": x, "y.npy": y}, packing))
    if random.random() < 0.5:
        # The compressed or uncompressed size of a member in the directory.
        start = content.rindex(b"PK\x01\x02") if random.random() < 0.5 else content.index(b"PK\x01\x02")
        struct.pack_into("<I", content, start + random.choice((16, 20, 24, 42)), extreme(random) % 2**32)
    return bytes(content)


def csv() -> list[bytes]:
    rows = "".join(f"{a:.3f},{b:.3f},{c:.3f},{name}\n" for (a, b, c), name in zip(_X, "abababab", strict=True))
    quoted = 'x;"b;c";"target"\r\n1;2.5;0\r\n-3;4e2;1\r\n'
    return [rows.encode(), b"one,two,three,label\n" + rows.encode(), quoted.encode(), ("\ufeffa\tb\n1\té\n").encode()]


def malformed_csv(random: Random) -> bytes:
    tokens = (
        *(b",", b",", b",", b"\n", b"\n", b"\n", b";", b"\t", b'"', b'""', b"\r", b"\r\n", b"\0", b" ", b"\xff", b"\\"),
        *(
            b"1",
            b"2",
            b"-3",
            b"0.5",
            b"1e5",
            b"nan",
            b"inf",
            b"1e999",
            b"1_0",
            b"a",
            b"b",
            b"\x1b[31m",
            b"\xe2\x80\xa8",
        ),
        *(b"target", b"label", "é".encode(), b"9" * 400, b"9" * 5000, b"x" * 300, b"x" * 140_000, b"1," * 3000),
    )
    # The long ones are rare.
    return b"".join(random.choices(tokens, [30] * (len(tokens) - 4) + [1] * 4, k=random.randrange(60)))


def parquet() -> list[bytes]:
    import pyarrow as pa

    columns = {f"x{i}": _X[:, i] for i in range(3)}
    names = pa.array(["a", "b"] * 4).dictionary_encode()
    tables = [
        pa.table({**columns, "y": pa.array(["a", "b"] * 4)}),
        pa.table({**columns, "label": _Y}),
        pa.table({"pixel": _LABELS, "other": pa.array([1.5, 2.5] * 4), "y": names}),
    ]
    return [
        *(_parquet(table) for table in tables),
        _parquet(tables[0], row_group_size=3, compression="zstd"),
        _parquet(tables[1], use_dictionary=False, data_page_version="2.0", compression="none"),
    ]


def malformed_parquet(random: Random) -> bytes:
    import pyarrow as pa

    rows = random.choice((0, 1, 8))
    kinds: list[Any] = [
        *(pa.float64(), pa.float32(), pa.float16(), pa.int8(), pa.uint64(), pa.bool_(), pa.null(), pa.decimal128(9, 2)),
        *(pa.string(), pa.large_string(), pa.binary(), pa.date32(), pa.timestamp("ns"), pa.list_(pa.int8())),
        *(pa.dictionary(pa.int32(), pa.string()), pa.struct([("a", pa.int8())]), pa.duration("s")),
    ]
    chosen = [random.choice(kinds[:6] if random.random() < 0.7 else kinds) for _ in range(random.choice((0, 1, 2, 4)))]
    values: tuple[Any, ...] = (0, 1, 0, 1, None, True, "a", 5)
    arrays = []
    for kind in chosen:
        try:
            arrays.append(pa.array([random.choice(values[:2] if random.random() < 0.5 else values)] * rows, kind))
        except (pa.ArrowException, TypeError, ValueError):
            arrays.append(pa.nulls(rows, kind))
    names = [random.choice(("a", "b", "y", "label", "", "a\nb", "\x1b[31m", "x" * 3000)) for _ in arrays]
    options = {
        "compression": random.choice(("none", "snappy", "gzip", "zstd")),
        "row_group_size": random.choice((1, 8)),
    }
    return _parquet(pa.table(arrays, names=names), **options)


def idx() -> list[bytes]:
    return [idx_bytes(_IMAGES), idx_bytes(_LABELS), idx_bytes(_X.astype(np.float32)), idx_bytes(_Y.astype(np.int16))]


def malformed_idx(random: Random) -> bytes:
    rank = random.choice((0, 1, 2, 3, 8, 9, 255))
    sizes = [size(random) % 2**32 for _ in range(min(rank, random.choice((rank, 8, 1))))]
    kind = random.choice((0x08, 0x09, 0x0B, 0x0C, 0x0D, 0x0E, 0x0A, 0))
    body = random.randbytes(random.choice((0, 8, 32, 192)))
    return bytes([0, 0, kind, rank]) + struct.pack(f">{len(sizes)}I", *sizes) + body


def packed_idx() -> list[bytes]:
    files = idx()
    halves = gzip.compress(files[0][:20], mtime=0) + gzip.compress(files[0][20:], mtime=0)
    return [*(gzip.compress(file, mtime=0) for file in files), halves]


def malformed_packed_idx(random: Random) -> bytes:
    count = random.choice((100, 1 << 20, 1 << 22))
    long = bytes([0, 0, 8, 1]) + struct.pack(">I", random.choice((count, size(random) % 2**32))) + bytes(count)
    return gzip.compress(random.choice((malformed_idx(random), malformed_idx(random), long)), 1, mtime=0)


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _parquet(table: Any, **options: Any) -> bytes:
    import pyarrow.parquet

    content = io.BytesIO()
    pyarrow.parquet.write_table(table, content, **options)
    return content.getvalue()
