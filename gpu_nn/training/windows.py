"""The windows of a stream on the device, one at a time, with the next being read meanwhile."""

from collections.abc import Generator
from typing import Any

import numpy as np

from gpu_nn.data.prefetcher import Window
from gpu_nn.data.stream import RowRanges, StreamDataset
from gpu_nn.device import Array
from gpu_nn.network import Network
from gpu_nn.training import window_order
from gpu_nn.training.ranks import ALONE, Ranks

# To read a stretch takes as long as to read about so many bytes more.
_CLOSE_BYTES = 1 << 16


class Windows:
    """rows: of a window, a whole number of batches, or all rows where they are fewer.  x: (own rows, inputs) through
    the fixed layers at the front, y: class indices or targets, of those rows of a window that this rank reads, both on
    the device and always the same arrays. The face is that of `Resident`, but for weights, of which there are none.
    """

    weight: Array | None = None

    def __init__(self, stream: StreamDataset, net: Network, batch_size: int, ranks: Ranks = ALONE):
        check_fits("x", stream, net)
        device, n_inputs = net.device, net.widths[0]
        self._stream, self._net = stream, net
        self._batch_size, self._ranks = batch_size, ranks
        self._close = _CLOSE_BYTES // (stream.reader.dtype.itemsize * n_inputs)
        self.rows = rows = min(max(stream.window_rows // batch_size, 1) * batch_size, len(stream))
        # Of a shorter batch its columns may be more; and shuffled it reads the most.
        own = max(self._own_rows(rows), self._own_rows(len(stream) % rows))
        kind = np.dtype(np.int64) if stream.targets == () else net.dtype
        self.x = device.empty((own, net.widths[net.n_preprocessing]), net.dtype)
        self.y = device.empty((own, *stream.targets), kind)
        self._host = device.empty_on_host((own, n_inputs), net.dtype)
        self._host_y = device.empty_on_host(self.y.shape, kind)
        # What comes from the host, before the fixed layers. On the CPU they take it where it is.
        direct = not net.n_preprocessing or device.kind == "cpu"
        self._raw = None if direct else device.empty((own, n_inputs), net.dtype)

    def fingerprint(self) -> dict[str, Any]:
        """What tells this data from other."""
        return self._stream.fingerprint()

    def prepare(self) -> None:
        """Each window is prepared as it comes."""

    def epoch(self, random: np.random.Generator | None, begins: int, order: Array) -> Generator[tuple[int, int]]:
        """Brings this rank's rows of window after window into x and y, from that of place `begins` of the epoch on, and
        which of them is at each place into `order`, (rows,) of int64; yields the window's first place and the one after
        its last.

        The epoch is drawn from `random`, None for the rows as they lie; any window of it can be the first.
        Raises DataError, on all ranks, for what is in the rows of one.
        """
        pieces = self._stream.epoch_ranges(random)
        seed = None if random is None else int(random.integers(2**63))
        n, rows = len(pieces), self.rows
        windows = [(start, min(rows, n - start)) for start in range(begins // rows * rows, n, rows)]
        read = (self._to_read(pieces, *window, shuffled=seed is not None) for window in windows)
        with self._stream.prefetch(read, self._host, self._host_y, self._net.n_classes) as ahead:
            for start, size in windows:
                of_window = None if seed is None else (seed, start // rows)
                places = window_order.order(size, self._batch_size, self._ranks, of_window)
                order[:size] = self._net.device.asarray(places)
                with self._ranks.agreed(), ahead.window() as window:
                    self._bring(*window)
                yield start, start + size

    def _to_read(self, pieces: RowRanges, start: int, size: int, shuffled: bool) -> Window:
        """Of a window the source's rows that this rank reads, and which of them it keeps."""
        of_window = size, self._batch_size, self._ranks
        own = window_order.stretches(*of_window, shuffled=shuffled, close=self._close)
        ranges = [piece for begin, end in own for piece in pieces.slice(start + begin, start + end)]
        if shuffled or self._ranks.size == 1:
            return ranges, None
        places = window_order.own_places(*of_window)
        return ranges, np.concatenate([places[begin:end] for begin, end in own or [(0, 0)]])

    def _own_rows(self, n: int) -> int:
        own = window_order.stretches(n, self._batch_size, self._ranks, shuffled=True)
        return sum(end - begin for begin, end in own)

    def _bring(self, x: np.ndarray, y: np.ndarray) -> None:
        net, device, size = self._net, self._net.device, len(x)
        if not size:
            return
        device.upload(y, self.y[:size])
        if not net.n_preprocessing:
            device.upload(x, self.x[:size])
        elif self._raw is None:
            net.prepare(x, self.x[:size])
        else:
            device.upload(x, self._raw[:size])
            net.prepare(self._raw[:size], self.x[:size])


def check_fits(name: str, stream: StreamDataset, net: Network) -> None:
    """Raises ValueError, with that name, for a stream without rows and one that does not fit the network."""
    if stream.shape[1] != net.n_inputs:
        expected = f"(n, {net.n_inputs}), one column for each input"
        raise ValueError(f"{name} is a stream of shape {stream.shape}; expected {expected}")
    if not len(stream):
        raise ValueError(f"{name} is a stream without rows; expected at least 1")
    if stream.targets not in ((), (net.n_classes,)):
        raise ValueError(
            f"y of the stream {name} has rows of {stream.targets}; expected labels or {net.n_classes} targets"
        )
