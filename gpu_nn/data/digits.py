"""The handwritten digits that scikit-learn ships: 1,797 images of 8×8 pixels in 17 grey levels."""

import numpy as np


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images (1797, 64) of uint8 and labels (1797,)."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x.astype(np.uint8), y.astype(np.int64)
