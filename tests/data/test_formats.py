import gzip
import re

import numpy as np
import pytest

from gpu_nn.data import read, read_inputs
from gpu_nn.errors import DataError
from tests.data.files import idx_bytes


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.csv.gz", "is packed; unpack it first"),
        ("a.CSV.GZ", "is packed; unpack it first"),
        ("a.csv", "is packed; unpack it first"),
        ("a.npy.zst", "is packed; unpack it first"),
        ("a.xlsx.zip", "is packed; unpack it first"),
        ("a.xlsx", "is a spreadsheet; save it as CSV"),
        ("a.xls", "is a spreadsheet; save it as CSV"),
        ("a.ods", "is a spreadsheet; save it as CSV"),
    ],
)
def test_errors_of_compressed_files_and_spreadsheets_say_what_to_do(tmp_path, name, message):
    packed = name.lower().endswith((".gz", "csv"))
    (tmp_path / name).write_bytes(gzip.compress(b"1,2\n3,4\n") if packed else b"PK\x03\x04 and so on")
    with pytest.raises(DataError, match=f"{re.escape(name)} {message}$"):
        read(str(tmp_path / name))


def test_packed_idx_files_are_read(tmp_path):
    images = np.random.default_rng(1).integers(0, 256, (20, 2, 2), dtype=np.uint8)
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx_bytes(images)))
    np.testing.assert_array_equal(read_inputs(str(tmp_path / "images.gz")), images.reshape(20, 4))
