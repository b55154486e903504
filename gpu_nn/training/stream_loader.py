"""A loader that has one window of a stream on the device while the next one is read."""

from collections.abc import Generator
from typing import Any

import numpy as np

from gpu_nn.data.prefetcher import Window
from gpu_nn.data.stream import RowRanges, StreamDataset
from gpu_nn.device import Array
from gpu_nn.distributed.communicator import SINGLE_PROCESS, Communicator
from gpu_nn.network import Network
from gpu_nn.training import sampler

# Starting another read takes about as long as reading this many bytes.
_MAX_GAP_BYTES = 1 << 16


class StreamLoader:
    """A `Loader` of a stream. rows: of a window, a whole number of batches, or all rows where they are fewer.

    Every window is loaded into the same arrays x and y, which hold the rows that this rank reads.
    """

    weight: Array | None = None

    def __init__(
        self, stream: StreamDataset, net: Network, batch_size: int, communicator: Communicator = SINGLE_PROCESS
    ):
        check_fits("x", stream, net)
        device, n_inputs = net.device, net.widths[0]
        self._stream, self._net = stream, net
        self._batch_size, self._communicator = batch_size, communicator
        self._max_gap = _MAX_GAP_BYTES // (stream.reader.dtype.itemsize * n_inputs)
        self.rows = rows = min(max(stream.window_rows // batch_size, 1) * batch_size, len(stream))
        # The rank may have more columns of the shorter last batch. It reads the most rows when they are shuffled.
        own = max(self._own_rows(rows), self._own_rows(len(stream) % rows))
        kind = np.dtype(np.int64) if stream.targets == () else net.dtype
        self.x = device.empty((own, net.widths[net.n_preprocessing]), net.dtype)
        self.y = device.empty((own, *stream.targets), kind)
        self._host = device.empty_on_host((own, n_inputs), net.dtype)
        self._host_y = device.empty_on_host(self.y.shape, kind)
        # Uploaded rows before the preprocessing layers, which on the CPU read them where they are.
        direct = not net.n_preprocessing or device.kind == "cpu"
        self._raw = None if direct else device.empty((own, n_inputs), net.dtype)

    def fingerprint(self) -> dict[str, Any]:
        return self._stream.fingerprint()

    def prepare(self) -> None:
        """`epoch` prepares each window."""

    def epoch(self, random: np.random.Generator | None, first_row: int, order: Array) -> Generator[tuple[int, int]]:
        """As `Loader.epoch`. Raises DataError, on all ranks, for wrong values in the rows of a window."""
        pieces = self._stream.epoch_ranges(random)
        seed = None if random is None else int(random.integers(2**63))
        n, rows = len(pieces), self.rows
        windows = [(start, min(rows, n - start)) for start in range(first_row // rows * rows, n, rows)]
        read = (self._to_read(pieces, *window, shuffled=seed is not None) for window in windows)
        with self._stream.prefetch(read, self._host, self._host_y, self._net.n_classes) as ahead:
            for start, size in windows:
                of_window = None if seed is None else (seed, start // rows)
                places = sampler.order(size, self._batch_size, self._communicator, of_window)
                order[:size] = self._net.device.asarray(places)
                with self._communicator.raise_on_all_ranks(), ahead.window() as window:
                    self._bring(*window)
                yield start, start + size

    def _to_read(self, pieces: RowRanges, start: int, size: int, shuffled: bool) -> Window:
        """The rows of the source that this rank reads of a window, and which of them it keeps; None for all."""
        of_window = size, self._batch_size, self._communicator
        own = sampler.shard_ranges(*of_window, shuffled=shuffled, max_gap=self._max_gap)
        ranges = [piece for begin, end in own for piece in pieces.slice(start + begin, start + end)]
        if shuffled or self._communicator.size == 1:
            return ranges, None
        places = sampler.own_places(*of_window)
        return ranges, np.concatenate([places[begin:end] for begin, end in own or [(0, 0)]])

    def _own_rows(self, n: int) -> int:
        own = sampler.shard_ranges(n, self._batch_size, self._communicator, shuffled=True)
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
