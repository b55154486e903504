"""Data sets: readers of files, splits, and streams of rows."""

from gpu_nn.data.datasets import Dataset, StreamSplits, is_large, read, read_streams, split
from gpu_nn.data.row_readers import open_row_reader
from gpu_nn.data.scaling import shift_and_scale
from gpu_nn.data.sources import digits, read_inputs, read_labelled
from gpu_nn.data.stream import StreamDataset, stream
from gpu_nn.data.table import Features

__all__ = [
    "Dataset",
    "Features",
    "StreamDataset",
    "StreamSplits",
    "digits",
    "is_large",
    "open_row_reader",
    "read",
    "read_inputs",
    "read_labelled",
    "read_streams",
    "shift_and_scale",
    "split",
    "stream",
]
