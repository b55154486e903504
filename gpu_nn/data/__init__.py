"""Data sets: readers of files, splits, and streams of rows."""

from gpu_nn.data.csv import read_csv
from gpu_nn.data.datasets import Dataset, StreamSplits, is_large, read, read_streams, split
from gpu_nn.data.idx import read_idx, read_idx_folder
from gpu_nn.data.labels import Labels
from gpu_nn.data.npy import read_npy
from gpu_nn.data.npz import read_npz
from gpu_nn.data.parquet import read_parquet
from gpu_nn.data.row_readers import open_row_reader
from gpu_nn.data.scaling import shift_and_scale
from gpu_nn.data.sources import digits, read_inputs, read_labelled
from gpu_nn.data.stream import StreamDataset, stream
from gpu_nn.data.table import Features, Table, Target

__all__ = [
    "Dataset",
    "Features",
    "Labels",
    "StreamDataset",
    "StreamSplits",
    "Table",
    "Target",
    "digits",
    "is_large",
    "open_row_reader",
    "read",
    "read_csv",
    "read_idx",
    "read_idx_folder",
    "read_inputs",
    "read_labelled",
    "read_npy",
    "read_npz",
    "read_parquet",
    "read_streams",
    "shift_and_scale",
    "split",
    "stream",
]
