"""python -m tests.benchmarks: the benchmark of a GPU at tiny sizes on the emulated device, where times mean nothing."""

import sys

from benchmarks.gpu import program
from tests.cuda_emulator.device import emulated_device

if __name__ == "__main__":
    with emulated_device(nvmath=True) as device:
        sys.exit(program.run(device, emulated=True))
