"""Data sets from files, and their parts."""

from gpu_nn.data.csv import read_csv
from gpu_nn.data.digits import digits
from gpu_nn.data.idx import read_idx, read_idx_folder
from gpu_nn.data.labels import Labels
from gpu_nn.data.npy import read_npy
from gpu_nn.data.npz import read_npz
from gpu_nn.data.parquet import read_parquet
from gpu_nn.data.row_sources import open_rows
from gpu_nn.data.scaling import scaling
from gpu_nn.data.sets import DataSet, StreamSet, is_large, read, read_streams, split
from gpu_nn.data.sources import labelled, read_inputs
from gpu_nn.data.stream import Stream, stream
from gpu_nn.data.table import Features, Table, Target

__all__ = [
    "DataSet",
    "Features",
    "Labels",
    "Stream",
    "StreamSet",
    "Table",
    "Target",
    "digits",
    "is_large",
    "labelled",
    "open_rows",
    "read",
    "read_csv",
    "read_idx",
    "read_idx_folder",
    "read_inputs",
    "read_npy",
    "read_npz",
    "read_parquet",
    "read_streams",
    "scaling",
    "split",
    "stream",
]
