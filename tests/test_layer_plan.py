import numpy as np
import pytest

from gpu_nn import Dense, Dropout, Standardize
from gpu_nn.device import resolve_device
from gpu_nn.flat_parameters import FlatParameters
from gpu_nn.kernels import kernels_for
from gpu_nn.layer_plan import LayerPlan
from gpu_nn.precision import precision

LAYERS = (Standardize(), Dropout(0.5), Dense(7, "relu"), Dense(3))
WIDTHS = (5, 5, 5, 7)


@pytest.fixture
def binding():
    device = resolve_device("cpu")
    of = precision("float32", device)
    store = FlatParameters(LAYERS, WIDTHS, device, of, np.random.default_rng(0))
    return LayerPlan(LAYERS, store, device, kernels_for(device), of, n_preprocessing=1)


def outputs(binding, n, training=False):
    a = np.ones((n, 5), np.float32)
    found = []
    for stage in binding.stages(n, training):
        a = stage.forward(a, training)
        found.append(a)
    return found


@pytest.mark.parametrize("first", [0, 1, 2])
def test_gradients_go_from_the_last_layer_to_the_first_that_learns(binding, first):
    stages, learning, loss = binding.step(4, first)
    assert stages == binding.stages(4, training=True)[first:]
    assert learning == binding.stages(4, training=True)[:1:-1]
    assert (loss.shape, loss.dtype) == ((4,), np.float32)
    assert binding.step(4, first) is binding.step(4, first)


def test_fewer_rows_work_in_the_memory_of_more_and_more_rows_in_memory_of_their_own(binding):
    of_8, of_3 = outputs(binding, 8)[-1], outputs(binding, 3)[-1]
    assert np.shares_memory(of_8, of_3)
    assert binding.times == 0
    taken = binding.nbytes
    assert taken >= 8 * (7 + 3) * 4
    of_9 = outputs(binding, 9)[-1]
    assert not np.shares_memory(of_8, of_9)
    assert binding.nbytes == taken * 9 // 8
    assert binding.times == 1


def test_a_step_that_needs_more_memory_takes_none_of_what_was_for_predictions(binding):
    before, stages = outputs(binding, 8)[-1], binding.stages(8, training=False)
    binding.step(100, 1)
    assert np.shares_memory(outputs(binding, 8)[-1], before)
    assert binding.stages(8, training=False) is stages
    assert binding.times == 0


def test_steps_are_made_anew_after_rebind_and_in_new_memory_after_release(binding):
    old = binding.step(8, 1)
    binding.rebind()
    again = binding.step(8, 1)
    assert again.stages[0] is not old.stages[0]
    assert np.shares_memory(again.loss, old.loss)
    binding.release()
    assert binding.nbytes == 0
    assert not np.shares_memory(binding.step(8, 1).loss, old.loss)
    assert binding.times == 2


def test_steps_of_a_smaller_batch_move_with_the_memory_when_a_larger_one_comes(binding):
    small = binding.step(4, 1)
    large = binding.step(9, 1)
    assert not np.shares_memory(small.loss, large.loss)
    assert np.shares_memory(binding.step(4, 1).loss, large.loss)


def test_two_hundred_sizes_of_batches_are_not_all_kept(binding):
    for n in range(1, 200):
        binding.step(n, 0)
    assert len(binding._stages) <= 65
    assert len(binding._steps) <= 65
    assert binding.step(7, 0) is binding.step(7, 0)
