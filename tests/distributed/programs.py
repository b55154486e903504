"""Programs that ranks run, whatever launcher started them."""

PROGRAM = """
import sys
import numpy as np
import gpu_nn
from gpu_nn.distributed import init_process_group
from gpu_nn.distributed.communicator import SINGLE_PROCESS

dtype, batch, micro_batches, out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
communicator, device = (SINGLE_PROCESS, "cpu") if out.endswith("alone.npz") else init_process_group()
with communicator:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((203, 7)), random.integers(0, 5, 203)
    net = gpu_nn.Network([7, 16, 5], activation="tanh", device=device, dtype=dtype)
    options = {"micro_batches": micro_batches, "communicator": communicator}
    trainer = gpu_nn.Trainer(net, gpu_nn.Adam(1e-2, max_norm=1.0), batch_size=batch, **options)
    history = trainer.fit(x, y, epochs=6, validation=(x[:51], y[:51]))
    losses = [(record.loss, record.validation_loss, record.validation_accuracy) for record in history.epochs]
    if communicator.rank == 0:
        np.savez(out, parameters=net.flat_parameters, losses=losses)
"""

STREAMED = """
import sys
import numpy as np
import gpu_nn
from gpu_nn.data import stream
from gpu_nn.distributed import init_process_group
from gpu_nn.distributed.communicator import SINGLE_PROCESS

out = sys.argv[1]
communicator, device = (SINGLE_PROCESS, "cpu") if out.endswith("alone.npz") else init_process_group()
with communicator:
    random = np.random.default_rng(0)
    x, y = random.standard_normal((203, 7)), random.integers(0, 5, 203)
    training, held_out = stream(x, y, block_rows=10, window_rows=70).split("validation", 0.25, seed=1)
    validation = stream(x[:151], y[:151], block_rows=10, window_rows=40)
    loaded, load = [], validation.reader.load

    def spy(start, stop):
        loaded.append(stop - start)
        return load(start, stop)

    validation.reader.load = spy
    net = gpu_nn.Network([7, 16, 5], activation="tanh", device=device, dtype="float64")
    trainer = gpu_nn.Trainer(net, gpu_nn.Adam(1e-2), batch_size=32, micro_batches=2, communicator=communicator)
    history = trainer.fit(training, epochs=4, validation=validation)
    last = trainer.evaluation.of_stream(held_out.row_slice(0, 1))  # no row for the second rank
    losses = [(record.loss, record.validation_loss, record.validation_accuracy) for record in history.epochs]
    rows = communicator.all_gather_object(sum(loaded) - len(validation))  # all are looked at once, for their checksum
    if communicator.rank == 0:
        np.savez(out, parameters=net.flat_parameters, losses=losses, last=last, rows=rows)
"""

SUM_OF_EXTREMES = """
import numpy as np
from gpu_nn.distributed import init_process_group

communicator, _ = init_process_group("cpu")
with communicator:
    most, sign = np.finfo(np.float32).max, 1 if communicator.rank == 0 else -1
    found = np.array([sign * np.inf, most, np.inf, np.nan, sign * most], np.float32)
    communicator.all_reduce(found)
    last = {2: 0, 3: -most, 4: -np.inf}[communicator.size]
    np.testing.assert_array_equal(found, [np.nan, np.inf, np.inf, np.nan, last])
"""
