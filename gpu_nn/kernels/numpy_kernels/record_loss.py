"""The end of a training step: the batch's cost goes where the host reads it later, and the counters go on."""

import numpy as np


def record_loss(
    row_losses: np.ndarray,
    step_losses: np.ndarray,
    position: np.ndarray | None,
    loss_scale: np.ndarray | None = None,
    rows: int | None = None,
) -> None:
    """step_losses[position_1] = Σ_r row_losses_r;  position_0 += rows, those that are done;  position_1 += 1.

    row_losses: (n,). position: (2,) of int64, with position_1 within step_losses; None for the first of them, where
    nothing goes on. loss_scale: (1,) of float32, a factor of the rows' costs that is taken off their sum. rows: n
    where it is None.
    """
    step = 0 if position is None else position.item(1)
    loss = np.add.reduce(row_losses)
    step_losses[step] = loss if loss_scale is None else loss / loss_scale[0]
    if position is not None:
        position[0] += len(row_losses) if rows is None else rows
        position[1] = step + 1
