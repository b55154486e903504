"""Small sets on which a classifier soon gets somewhere."""

import numpy as np


def blobs(n=120, features=5, classes=3, seed=0):
    """Gaussian clouds, some way apart: (n, features) of float64, and their numbers."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, n)
    centres = np.random.default_rng(99).standard_normal((classes, features)) * 2
    return centres[y] + random.standard_normal((n, features)), y


def flags(n=400, labels=3, seed=0):
    """Inputs, and flags that each say whether one input is positive: none, some or all of a row."""
    x = np.random.default_rng(seed).standard_normal((n, labels + 1))
    return x, (x[:, :labels] > 0).astype(int)
