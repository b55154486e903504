"""How ranks end that fail, as threads of this process."""

import threading

import numpy as np
import pytest

from gpu_nn.distributed import together
from gpu_nn.training.ranks import RankFailed
from tests.training.threads import on_each


def outcome(ranks, work):
    """What ends the block, by its type, and what it says."""
    try:
        with together(ranks):
            work(ranks)
    except BaseException as error:
        return type(error), str(error)
    return None


def test_what_all_ranks_raise_is_told_by_rank_0(capsys):
    def fail(ranks):
        with ranks.agreed():
            raise ValueError("no such thing")

    told = on_each(3, lambda ranks: outcome(ranks, fail))
    assert told == [(ValueError, "no such thing"), (SystemExit, "1"), (SystemExit, "1")]
    assert capsys.readouterr().err == ""


def test_what_one_rank_raises_is_raised_on_all_with_its_number():
    def fail(ranks):
        with ranks.agreed():
            if ranks.rank == 1:
                raise ValueError("no such thing")

    told = on_each(2, lambda ranks: outcome(ranks, fail))
    assert told == [(RankFailed, "rank 1: no such thing"), (SystemExit, "1")]


def test_a_rank_that_fails_alone_ends_the_others_though_all_had_failed_before_and_gone_on(capsys):
    def go_on(ranks):
        with pytest.raises(ValueError, match="at first"), ranks.agreed():
            raise ValueError("at first")
        if ranks.rank == 1:
            raise OSError("the disk is full")
        ranks.sum(np.zeros(1))

    told = on_each(2, lambda ranks: outcome(ranks, go_on))
    assert told[1] == (SystemExit, "1")
    assert "rank 1 of 2 failed: the disk is full; all ranks end" in capsys.readouterr().err
    assert told[0][0] in (threading.BrokenBarrierError, SystemExit)
