"""How ranks end that fail, as threads of this process."""

import threading
from contextlib import nullcontext

import numpy as np
import pytest

from gpu_nn.distributed import EXIT_FAILURE, is_raised_on_all_ranks
from gpu_nn.distributed.communicator import SINGLE_PROCESS, Communicator, RankFailed
from tests.training.threads import on_each


def outcome(communicator, work):
    """What ends the block: its type, what it says, and whether all ranks raise it."""
    try:
        with communicator:
            work(communicator)
    except BaseException as error:
        return type(error), str(error), is_raised_on_all_ranks(error)
    return None


def test_what_all_ranks_raise_is_known_as_such():
    def fail(communicator):
        with communicator.raise_on_all_ranks():
            raise ValueError("no such thing")

    assert on_each(3, lambda communicator: outcome(communicator, fail)) == [(ValueError, "no such thing", True)] * 3


def test_what_one_rank_raises_in_a_training_of_its_own_is_its_alone():
    with pytest.raises(ValueError, match="no such thing") as raised, SINGLE_PROCESS.raise_on_all_ranks():
        raise ValueError("no such thing")
    assert not is_raised_on_all_ranks(raised.value)


def test_what_one_rank_raises_is_raised_on_all_with_its_number():
    def fail(communicator):
        with communicator.raise_on_all_ranks():
            if communicator.rank == 1:
                raise ValueError("no such thing")

    told = on_each(2, lambda communicator: outcome(communicator, fail))
    assert told == [(RankFailed, "rank 1: no such thing", True), (ValueError, "no such thing", True)]


def test_a_rank_that_fails_alone_ends_the_others_though_all_had_failed_before_and_gone_on():
    def go_on(communicator):
        with pytest.raises(ValueError, match="at first"), communicator.raise_on_all_ranks():
            raise ValueError("at first")
        if communicator.rank == 1:
            raise OSError("the disk is full")
        communicator.all_reduce(np.zeros(1))

    told = on_each(2, lambda communicator: outcome(communicator, go_on))
    assert told[1] == (OSError, "the disk is full", False)
    assert told[0][0] is threading.BrokenBarrierError


class Alone(Communicator):
    """A rank that notes how it ended."""

    def __init__(self):
        super().__init__(0, 2)
        self.ended = []

    def abort(self, error):
        self.ended.append(error)

    def close(self, timeout=None):
        self.ended.append(timeout)


@pytest.mark.parametrize(
    ("error", "code", "told", "is_soon"),
    [
        (None, None, "", False),
        (SystemExit(), None, "", False),
        (SystemExit(0), 0, "", False),
        (SystemExit(3), 3, "", True),
        (SystemExit("no data"), EXIT_FAILURE, "no data\n", True),
        (KeyboardInterrupt(), None, "", True),
    ],
    ids=repr,
)
def test_an_end_without_an_exception_waits_for_the_others_and_not_for_long_where_it_is_early(
    capsys, error, code, told, is_soon
):
    communicator = Alone()
    with nullcontext() if error is None else pytest.raises(type(error)), communicator:
        if error is not None:
            raise error
    assert getattr(error, "code", None) == code
    (seconds,) = communicator.ended
    assert (seconds is not None) == is_soon
    assert capsys.readouterr().err == told
