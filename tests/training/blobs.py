import numpy as np


def blobs(n=230, inputs=5, classes=3, seed=0, wrong=0.0):
    """Gaussian clouds, some way apart. wrong: share of the rows that get a label at random."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, n)
    centres = np.random.default_rng(99).standard_normal((classes, inputs)) * 3
    x = (centres[y] + random.standard_normal((n, inputs))).astype(np.float32)
    return x, np.where(random.random(n) < wrong, random.integers(0, classes, n), y)
