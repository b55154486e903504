"""One, two and four ranks end in the bits that are on record."""

import numpy as np
import pytest

from tests.recorded.trainings import ON_RANKS, check


@pytest.mark.parametrize("kind", ["arrays", "stream"])
@pytest.mark.parametrize("size", [1, 2, 4])
def test_ranks_end_in_the_bits_on_record(on_ranks, tmp_path, size, kind):
    done = on_ranks(size, (ON_RANKS, [kind, tmp_path / "found.npz"]))
    assert [(code, err) for code, _, err in done] == [(0, "")] * size
    check(f"ranks_{kind}", dict(np.load(tmp_path / "found.npz")))
