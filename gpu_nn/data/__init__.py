"""Data sets from files, and their parts."""

from gpu_nn.data.digits import digits
from gpu_nn.data.idx import read_idx, read_idx_folder
from gpu_nn.data.npz import read_npz
from gpu_nn.data.sets import DataSet, read, read_inputs, scaling, split

__all__ = ["DataSet", "digits", "read", "read_idx", "read_idx_folder", "read_inputs", "read_npz", "scaling", "split"]
