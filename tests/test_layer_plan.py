import numpy as np
import pytest

from gpu_nn import Dense, Dropout, Standardize
from gpu_nn.device import resolve_device
from gpu_nn.flat_parameters import FlatParameters
from gpu_nn.layer_plan import LayerPlan
from gpu_nn.precision import precision

LAYERS = (Standardize(), Dropout(0.5), Dense(7, "relu"), Dense(3))
WIDTHS = (5, 5, 5, 7)


@pytest.fixture
def plan():
    device = resolve_device("cpu")
    floats = precision("float32", device)
    flat = FlatParameters(LAYERS, WIDTHS, device, floats, np.random.default_rng(0))
    return LayerPlan(LAYERS, flat, device, floats, n_preprocessing=1)


def outputs(plan, n, training=False):
    a = np.ones((n, 5), np.float32)
    found = []
    for layer in plan.bound_layers(n, training):
        a = layer.forward(a, training)
        found.append(a)
    return found


@pytest.mark.parametrize("first", [0, 1, 2])
def test_gradients_go_from_the_last_layer_to_the_first_that_learns(plan, first):
    forward, backward, loss = plan.training_pass(4, first)
    assert forward == plan.bound_layers(4, training=True)[first:]
    assert backward == plan.bound_layers(4, training=True)[:1:-1]
    assert (loss.shape, loss.dtype) == ((4,), np.float32)
    assert plan.training_pass(4, first) is plan.training_pass(4, first)


def test_fewer_rows_work_in_the_memory_of_more_and_more_rows_in_memory_of_their_own(plan):
    of_8, of_3 = outputs(plan, 8)[-1], outputs(plan, 3)[-1]
    assert np.shares_memory(of_8, of_3)
    assert plan.version == 0
    taken = plan.nbytes
    assert taken >= 8 * (7 + 3) * 4
    of_9 = outputs(plan, 9)[-1]
    assert not np.shares_memory(of_8, of_9)
    assert plan.nbytes == taken * 9 // 8
    assert plan.version == 1


def test_a_step_that_needs_more_memory_takes_none_of_what_was_for_predictions(plan):
    before, bound = outputs(plan, 8)[-1], plan.bound_layers(8, training=False)
    plan.training_pass(100, 1)
    assert np.shares_memory(outputs(plan, 8)[-1], before)
    assert plan.bound_layers(8, training=False) is bound
    assert plan.version == 0


def test_passes_are_made_anew_after_invalidate_and_in_new_memory_after_release(plan):
    old = plan.training_pass(8, 1)
    plan.invalidate()
    again = plan.training_pass(8, 1)
    assert again.forward[0] is not old.forward[0]
    assert np.shares_memory(again.loss, old.loss)
    plan.release()
    assert plan.nbytes == 0
    assert not np.shares_memory(plan.training_pass(8, 1).loss, old.loss)
    assert plan.version == 2


def test_steps_of_a_smaller_batch_move_with_the_memory_when_a_larger_one_comes(plan):
    small = plan.training_pass(4, 1)
    large = plan.training_pass(9, 1)
    assert not np.shares_memory(small.loss, large.loss)
    assert np.shares_memory(plan.training_pass(4, 1).loss, large.loss)


def test_two_hundred_sizes_of_batches_are_not_all_kept(plan):
    for n in range(1, 200):
        plan.training_pass(n, 0)
    assert len(plan._bound) <= 65
    assert len(plan._passes) <= 65
    assert plan.training_pass(7, 0) is plan.training_pass(7, 0)
