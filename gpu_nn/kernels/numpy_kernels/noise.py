"""Gaussian noise that is counter-based: the same seed and counter give the same noise on every device."""

import math

import numpy as np

from gpu_nn.kernels.numpy_kernels.philox import words
from gpu_nn.kernels.numpy_kernels.rows import scratch


def noise(x: np.ndarray, out: np.ndarray, deviation: float, seed: int, counter: np.ndarray) -> None:
    """out = x + deviation · ε, ε ~ N(0, 1). out may be x.

    counter: (1,) uint64, the number of the draw. Elements i and i+1, i even, get √(-2 ln((v+½)/2³²)) · (cos, sin) of
    2π w/2³², v and w being the 32-bit words i and i+1 of the stream that `dropout` draws from.
    """
    flat, flat_out = x.reshape(-1), out.reshape(-1)
    for part, word in words(seed, counter, x.size):
        radius, angle, work = (scratch.take(name, (len(word) // 2,), x.dtype) for name in ("radius", "angle", "work"))
        np.copyto(radius, word[0::2])
        radius += 0.5
        radius *= 2.0**-32
        np.log(radius, out=radius)
        radius *= -2
        np.sqrt(radius, out=radius)
        radius *= deviation
        np.copyto(angle, word[1::2])
        angle *= math.pi * 2.0**-31
        for first, of_angle in ((part.start, np.cos), (part.start + 1, np.sin)):
            place = slice(first, part.stop, 2)
            of_angle(angle, out=work)
            work *= radius
            np.add(flat[place], work[: len(flat[place])], out=flat_out[place])
