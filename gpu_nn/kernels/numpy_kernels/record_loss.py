"""End of a training step: stores the batch's cost where the host reads it later, and advances the counters."""

import numpy as np


def record_loss(
    row_losses: np.ndarray,
    step_losses: np.ndarray,
    position: np.ndarray | None,
    loss_scale: np.ndarray | None = None,
    rows: int | None = None,
) -> None:
    """step_losses[position_1] = Σ_r row_losses_r;  position_0 += rows, the rows done;  position_1 += 1.

    row_losses: (n,). position: (2,) of int64, with position_1 within step_losses; None stands for 0, and
    nothing is advanced. loss_scale: (1,) of float32, by which the rows' costs are multiplied and their sum is divided.
    rows: None stands for n.
    """
    step = 0 if position is None else position.item(1)
    loss = np.add.reduce(row_losses)
    step_losses[step] = loss if loss_scale is None else loss / loss_scale[0]
    if position is not None:
        position[0] += len(row_losses) if rows is None else rows
        position[1] = step + 1
