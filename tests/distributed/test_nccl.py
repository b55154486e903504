"""Ranks on GPUs hand NCCL the key of rank 0 and what it is to add; that it does is for machines that have GPUs."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from gpu_nn import device
from gpu_nn.distributed import nccl
from gpu_nn.distributed.communicator import Communicator
from gpu_nn.errors import DeviceError


class Others(Communicator):
    """Two ranks of which the other one says `told`, after it agreed."""

    def __init__(self, rank, told=None):
        super().__init__(rank, 2)
        self.told, self.said, self.ended = told, [], []

    def all_gather_object(self, value):
        self.said.append(value)
        told = self.told if len(self.said) > 1 else None
        return [value, told] if self.rank == 0 else [told, value]

    def abort(self, error):
        self.ended.append(error)

    def close(self, timeout=None):
        self.ended.append(timeout)


class Communicator:
    def __init__(self, size, key, rank):
        if rank > 1:
            raise RuntimeError("NCCL_ERROR_SYSTEM_ERROR")
        self.made, self.calls, self.aborted = (size, key, rank), [], False

    def abort(self):
        self.aborted = True

    def allReduce(self, *arguments):
        self.calls.append(arguments)
        Stream.log.append(("sum", arguments[0], arguments[-1]))


NCCL = SimpleNamespace(
    available=True, get_unique_id=lambda: b"\0key\xff", NcclCommunicator=Communicator, NCCL_SUM=0,
    NCCL_FLOAT32=7, NCCL_FLOAT64=8, NCCL_INT64=4, NCCL_BFLOAT16=9,
    groupStart=lambda: Stream.log.append("group"), groupEnd=lambda: Stream.log.append("end of group"),
)  # fmt: skip


class Event:
    def __init__(self, disable_timing):
        assert disable_timing


class Stream:
    """Streams and what they are told, in order."""

    log: ClassVar[list] = []

    def __init__(self, ptr=88, non_blocking=True, priority=-1):
        assert non_blocking
        assert priority < 0
        self.ptr = ptr

    def record(self, event):
        self.log.append(("record", self.ptr, event))
        return event

    def wait_event(self, event):
        self.log.append(("wait", self.ptr, event))


def cupy_override(monkeypatch, found):
    """CuPy, with which `found` is the module for NCCL: as in CuPy itself, no attribute of cuda until it is imported."""
    cuda = SimpleNamespace(get_current_stream=lambda: Stream(77), Stream=Stream, Event=Event)
    monkeypatch.setattr(Stream, "log", [])
    monkeypatch.setattr(device, "cupy_override", SimpleNamespace(__name__="a_cupy", cuda=cuda))
    monkeypatch.setitem(sys.modules, "a_cupy", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "a_cupy.cuda", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "a_cupy.cuda.nccl", found)


@pytest.fixture
def gpu(monkeypatch):
    """A device whose arrays are SimpleNamespaces with what NCCL is told of them."""
    cupy_override(monkeypatch, NCCL)
    return SimpleNamespace(
        active=nullcontext,
        asarray=lambda array: SimpleNamespace(data=SimpleNamespace(ptr=55), size=array.size, dtype=array.dtype),
        to_host=lambda there: np.full(there.size, 3, there.dtype),
    )


@pytest.mark.parametrize(("rank", "told"), [(0, None), (1, "006b6579ff")])
def test_all_ranks_have_the_key_of_rank_0(gpu, rank, told):
    others = Others(rank, told)
    communicator = nccl.NcclCommunicator(gpu, others)
    assert communicator._world.made == (2, b"\0key\xff", rank)
    assert others.said[-1] == ("006b6579ff" if rank == 0 else None)


@pytest.mark.parametrize(("name", "number"), [("float32", 7), ("float64", 8), ("int64", 4), ("bfloat16", 9)])
def test_an_array_on_the_device_is_summed_in_its_place_on_the_stream_at_work(gpu, name, number):
    communicator = nccl.NcclCommunicator(gpu, Others(0))
    communicator.all_reduce(SimpleNamespace(data=SimpleNamespace(ptr=123), size=5, dtype=SimpleNamespace(name=name)))
    assert communicator._world.calls == [(123, 123, 5, number, NCCL.NCCL_SUM, 77)]


def test_an_array_on_the_host_comes_back_summed(gpu):
    communicator, array = nccl.NcclCommunicator(gpu, Others(0)), np.array([1, 2])
    communicator.all_reduce(array)
    assert communicator._world.calls == [(55, 55, 2, NCCL.NCCL_INT64, NCCL.NCCL_SUM, 77)]
    assert array.tolist() == [3, 3]


def test_sums_that_were_begun_wait_for_what_is_queued_and_are_waited_for(gpu):
    communicator = nccl.NcclCommunicator(gpu, Others(0))
    first, second = (
        SimpleNamespace(data=SimpleNamespace(ptr=ptr), size=5, dtype=np.dtype(np.float32)) for ptr in (1, 2)
    )
    assert communicator.supports_overlap
    communicator.all_reduce_async(first)
    communicator.all_reduce_async(first, second)
    communicator.wait()
    (written,) = {entry[2] for entry in Stream.log if entry[:2] == ("record", 77)}
    (summed,) = {entry[2] for entry in Stream.log if entry[:2] == ("record", 88)}
    begun = [("record", 77, written), ("wait", 88, written), "group"]
    assert Stream.log == [
        *(*begun, ("sum", 1, 88), "end of group"),
        *(*begun, ("sum", 1, 88), ("sum", 2, 88), "end of group"),
        *(("record", 88, summed), ("wait", 77, summed)),
    ]


def test_ranks_that_do_not_meet_by_nccl_say_who(gpu):
    others = Others(1, "00")
    others.rank, others.size = 2, 3
    with pytest.raises(DeviceError, match="rank 2 of 3 did not meet the others by NCCL: NCCL_ERROR_SYSTEM_ERROR"):
        nccl.NcclCommunicator(gpu, others)


def test_the_end_is_left_to_how_the_ranks_met(gpu):
    others = Others(0)
    communicator = nccl.NcclCommunicator(gpu, others)
    communicator.close()
    assert not communicator._world.aborted
    communicator.close(7.0)  # an early end
    assert others.ended == [None, 7.0]
    assert communicator._world.aborted


def test_sums_that_others_will_never_join_are_given_up(gpu):
    others = Others(0)
    communicator = nccl.NcclCommunicator(gpu, others)
    alone, of_all = ValueError("alone"), others.mark_raised_on_all_ranks(ValueError("of all"))
    communicator.abort(of_all)
    assert not communicator._world.aborted
    communicator.abort(alone)
    assert communicator._world.aborted
    assert others.ended == [of_all, alone]


@pytest.mark.parametrize("found", [None, SimpleNamespace(available=False)], ids=["absent", "unavailable"])
def test_without_nccl_the_extra_is_named(monkeypatch, found):
    cupy_override(monkeypatch, found)
    with pytest.raises(DeviceError, match=r"pip install 'gpu_nn\[nccl12\]' beside cuda12x, 'gpu_nn\[nccl13\]'"):
        nccl.module()


@pytest.mark.slow
def test_cupy_itself_has_what_is_asked_of_it():
    """With CuPy and NCCL installed, as .ci/run does; the key of a world needs no GPU."""
    found = nccl.module()
    key = found.get_unique_id()
    assert bytes.fromhex(key.hex()) == key
    for name in vars(NCCL):
        assert hasattr(found, name)
    assert callable(found.NcclCommunicator.abort)
    # The arguments are right, but there is no GPU.
    with nullcontext() if not device.cuda_unavailable_reason() else pytest.raises(RuntimeError, match="NCCL_ERROR"):
        found.NcclCommunicator(1, key, 0)
