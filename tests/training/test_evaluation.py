import numpy as np
import pytest

from gpu_nn import Network
from gpu_nn import functional as F
from gpu_nn.cost import Cost
from gpu_nn.data import stream
from gpu_nn.distributed.communicator import SINGLE_PROCESS, Communicator
from gpu_nn.training.evaluation import Evaluation
from tests.training.blobs import blobs


class Rank(Communicator):
    """One of several whose sums are kept instead of added."""

    def __init__(self, rank, size):
        super().__init__(rank, size)
        self.given = []

    def all_reduce(self, array):
        self.given.append(array.copy())


@pytest.fixture
def net():
    return Network([5, 8, 3], device="cpu", seed=1, dtype="float64")


def evaluation(net, communicator=SINGLE_PROCESS, **cost):
    return Evaluation(net, Cost(**cost).kernel_options(np, net.n_classes, net.dtype), communicator)


@pytest.mark.parametrize("targets", ["labels", "probabilities"])
def test_it_is_the_mean_cost_and_the_share_of_rows_whose_largest_logit_is_the_label(net, targets):
    x, labels = blobs()
    y = labels
    if targets == "probabilities":
        y = np.full((len(x), 3), 0.2)
        y[np.arange(len(x)), labels] = 0.6
    loss, accuracy = evaluation(net, complement_weight=0.5, class_weight=[1, 2, 3]).of_arrays(x.astype(float), y)
    logits = net.forward(x)
    options = {"complement_weight": 0.5, "class_weight": [1, 2, 3]}
    assert loss == pytest.approx(F.softmax_cross_entropy(logits, y, **options) / len(x), rel=1e-12)
    assert accuracy == (logits.argmax(axis=1) == labels).mean()
    assert 0 < accuracy < 1


def test_a_stream_gives_what_its_rows_give_in_memory(net):
    x, y = blobs()
    streamed = stream(x, y, block_rows=7, window_rows=21)
    found = evaluation(net).of_stream(streamed)
    np.testing.assert_allclose(found, evaluation(net).of_arrays(x.astype(float), y), rtol=1e-12)


def test_the_shares_of_ranks_add_up_to_the_whole_also_where_some_have_no_rows(net):
    x, y = (array[:5] for array in blobs())
    whole = evaluation(net).of_arrays(x.astype(float), y)
    communicator = [Rank(i, 7) for i in range(7)]
    for rank in communicator:
        evaluation(net, rank).of_arrays(x.astype(float), y)
    total = np.sum([rank.given[0] for rank in communicator], axis=0)
    np.testing.assert_allclose(total / 5, whole, rtol=1e-12)
