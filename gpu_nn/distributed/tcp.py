"""Ranks that meet by TCP, where the environment says, as torchrun and programs for Ray and Dask set it.

Each has a connection to rank 0, and a thread that reads it. Over it go sums of arrays on the host, and what no launcher
sees to: that a rank failed. One that ends without a word has died; either ends all within seconds.
"""

import atexit
import os
import socket
import sys
import threading
import time
from contextlib import suppress
from queue import SimpleQueue
from typing import NoReturn
from weakref import WeakSet

import numpy as np

from gpu_nn.device import Array
from gpu_nn.distributed import meeting, messages
from gpu_nn.distributed.introductions import Hello
from gpu_nn.errors import DeviceError
from gpu_nn.training.ranks import Ranks

_SAID, _LEFT, _ENDED = b"s", b"l", b"e"
_FAILED = 1

# Seconds: for a message at work to be sent before the last one, and for the thread to end a process.
_UNTIL_SENT = 1.0
_UNTIL_ENDED = 10.0


class TcpRanks(Ranks):
    """The ranks that meet at a host and port, with arrays on the host.

    host, port: where rank 0 listens while the others come, one of its own addresses.  cure: what may be done where the
    port is taken.  job: what tells these ranks from those of another job.  seconds: in which rank 0 must listen.
    patience: seconds in which all others must have come.

    Raises DeviceError where they do not meet.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        host: str,
        port: int,
        cure: str = "choose another port",
        job: str = "",
        *,
        seconds: float = meeting.UNTIL_IT_LISTENS,
        patience: float = meeting.UNTIL_ALL_CAME,
    ):
        super().__init__(rank, size)
        self._others: dict[int, _Other] = {}
        self._over = False
        self._parted = threading.Event()
        self._ending = threading.Lock()
        _LIVE.add(self)
        own = Hello.of(rank, size, job)
        try:
            if rank:
                self._listen_to(0, meeting.reached(host, port, own, cure, seconds))
            elif size > 1:
                for other, connection in meeting.arrivals(host, port, own, cure, patience):
                    self._listen_to(other, connection)
        except DeviceError as error:
            self._over = True
            self._tell_all(_ENDED, str(error))
            self._parted.set()
            raise

    def sum(self, array: Array) -> None:
        """Rank 0 adds ranks 0 and 1, then 2 and 3, then these two sums, and so on, the order of `MpiRanks`."""
        content = memoryview(array.reshape(-1).view(np.uint8))
        if self.rank:
            self._others[0].say(content)
            array[...] = self._others[0].heard(array)
            return
        sums = [array, *(self._others[rank].heard(array) for rank in range(1, self.size))]
        distance = 1
        while distance < self.size:
            for at in range(0, self.size - distance, 2 * distance):
                with np.errstate(over="ignore", invalid="ignore"):  # as on GPUs
                    sums[at] += sums[at + distance]
            distance *= 2
        for other in self._others.values():
            other.say(content)

    def abort(self, code: int) -> None:
        with self._ending:
            _end_soon(code)
            self._tell_all(_ENDED, f"rank {self.rank} failed")
            # Not an exception: on the way out it would wait for sums on the device that the others never join.
            os._exit(code)

    def leave(self) -> None:
        if not self._over:
            self._over = True
            self._tell_all(_LEFT)
            for other in self._others.values():
                other.tell_no_more()
            self._parted.set()

    def forget(self) -> None:
        """In a process that this one forked: the connections are not its own, and it must not hold them open."""
        self._over = True
        for other in self._others.values():
            other.connection.close()

    def end_with_the_program(self) -> None:
        """Outside of `together`: an exception that ends the program ends all."""
        if _ended_by_an_exception() and not self._over:
            # Those who are told first end, and are not to be told of to the others as dead.
            self._over = True
            self._tell_all(_ENDED, f"rank {self.rank} failed")
        self.leave()

    def _listen_to(self, rank: int, connection: socket.socket) -> None:
        self._others[rank] = other = _Other(rank, connection)
        threading.Thread(target=self._listen, args=(other,), name=f"gpu_nn-rank-{rank}", daemon=True).start()

    def _listen(self, other: "_Other") -> None:
        reason = f"rank {other.rank} died"
        try:
            while True:
                kind, content = messages.received(other.connection)
                if kind == _SAID:
                    other.said.put(content)
                elif kind == _LEFT:
                    other.has_left = True
                    other.said.put(None)
                else:
                    reason, other.has_left = content.decode(errors="replace"), False
                    break
        except OSError as error:
            if messages.is_unheard(error):
                reason = f"the host of rank {other.rank} has not answered for {messages.UNTIL_GIVEN_UP} seconds"
        except MemoryError:
            self._end(f"rank {self.rank} has no memory left for what rank {other.rank} gave to a sum")
        if not other.has_left:
            self._end(reason, besides=other)
        # A process that lives on, as the workers of Ray and Dask do, keeps no connection of a training that is over.
        self._parted.wait()
        other.connection.close()

    def _end(self, reason: str, besides: "_Other | None" = None) -> None:
        with self._ending:  # by the first that is known of
            if self._over:
                return
            _end_soon(_FAILED)
            self._tell_all(_ENDED, reason, besides)
            # Neither Python's stderr nor its way out: the main thread, which waits, may hold either.
            try:
                os.write(2, f"rank {self.rank} of {self.size} ends: {reason}\n".encode())
                sys.stdout.flush()  # or what was printed before is lost; should it be held, `_end_soon` ends that
            finally:  # be nobody there to read it
                os._exit(_FAILED)

    def _tell_all(self, kind: bytes, content: str = "", besides: "_Other | None" = None) -> None:
        for other in list(self._others.values()):  # to which one may come in the meantime
            if other is not besides:
                other.tell(kind, content.encode())


class _Other:
    """A rank at the other end of a connection. said: what it gave to sums, and None when it has left."""

    def __init__(self, rank: int, connection: socket.socket):
        self.rank, self.connection = rank, connection
        self.said: SimpleQueue[bytearray | None] = SimpleQueue()
        self.has_left = False
        self._sending = threading.Lock()

    def say(self, content: memoryview) -> None:
        try:
            with self._sending:
                messages.send(self.connection, _SAID, content)
        except OSError:
            self._gone()

    def heard(self, like: Array) -> Array:
        """The array that it gave, or raises DeviceError."""
        content = self.said.get()
        if content is None:
            self.said.put(None)
            self._gone()
        if len(content) != like.nbytes:
            told = f"rank {self.rank} gave {len(content)} bytes to a sum where this one gave {like.nbytes}"
            raise DeviceError(f"{told}; all ranks must do the same in the same order")
        return np.frombuffer(content, like.dtype).reshape(like.shape)

    def tell(self, kind: bytes, content: bytes) -> None:
        """Said if it can be: to one that is gone, or that does not take what it was sent, there is nothing to say."""
        if self._sending.acquire(timeout=_UNTIL_SENT):
            try:
                messages.send(self.connection, kind, content)
            except OSError:
                pass
            finally:
                self._sending.release()

    def tell_no_more(self) -> None:
        """The other end may go on, and see that there is nothing more to wait for."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)

    def _gone(self) -> NoReturn:
        if not self.has_left:
            time.sleep(_UNTIL_ENDED)  # the thread that reads ends this process, and says why
        raise DeviceError(f"rank {self.rank} has left; all ranks must do the same in the same order")


def _ended_by_an_exception() -> bool:
    """Whether one ends the program, where others, told by IPython, pytest or Tk, were the end of a call and no more."""
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)  # before Python 3.12
    if error is None or error.__traceback__ is None or hasattr(sys, "ps1"):  # a prompt goes on after it
        return False
    # It came all the way out: nothing had called the first of its frames.
    return error.__traceback__.tb_frame.f_back is None


def _end_soon(code: int) -> None:
    """Ends the process though one that is told, suspended perhaps, takes nothing more."""
    timer = threading.Timer(_UNTIL_ENDED, os._exit, [code])
    timer.daemon = True
    timer.start()


_LIVE: WeakSet[TcpRanks] = WeakSet()


@atexit.register
def _end_with_the_program() -> None:
    for ranks in _LIVE:
        ranks.end_with_the_program()


def _forget() -> None:
    for ranks in _LIVE:
        ranks.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
