"""The heaviest weights of a row are those that sorting all of them would leave, on every way to a sparse matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs torch")

from st_core.backends.torch import sparse as _torch_sparse  # noqa: E402 -- after the guard
from st_core.sparse_encoder import _sparse  # noqa: E402
from st_core.vectors import MIN_WEIGHT, SparseMatrix, SparseVector  # noqa: E402

pytestmark = pytest.mark.torch

WIDTH = 9
WEIGHTS = st.sampled_from([0.0, 0.0, 1.0, 1.0, 2.0, 0.5, 3.0, -1.0, MIN_WEIGHT, 1e-40, math.nan, math.inf, -math.inf])
ROWS = st.lists(st.lists(WEIGHTS, min_size=WIDTH, max_size=WIDTH), min_size=1, max_size=5)


def brute_force(rows, keep):
    """Every proper weight sorted, heaviest first and of equal ones the lower index; the first ``keep`` stay."""
    vectors = []
    for row in rows:
        proper = [(-weight, index) for index, weight in enumerate(row) if MIN_WEIGHT <= weight < math.inf]
        vectors.append(SparseVector.from_mapping({index: -weight for weight, index in sorted(proper)[:keep]}))
    return SparseMatrix.from_rows(vectors, WIDTH)


@given(rows=ROWS, keep=st.none() | st.integers(1, WIDTH + 2))
def test_arrays_and_tensors_keep_what_sorting_keeps(rows, keep):
    """With ties, with weights that are none, with more asked for than there are, and with nothing asked for."""
    array, expected = np.array(rows, np.float32), brute_force(rows, keep)

    assert _sparse(array, keep) == expected
    assert _sparse(torch.from_numpy(array), keep) == expected


@given(rows=ROWS, keep=st.integers(1, WIDTH - 1))
def test_the_cut_on_a_device_keeps_the_same(rows, keep):
    """Taken on the processor here: it is the same for tensors of every device."""
    weights = torch.tensor(rows).where(torch.tensor(rows) >= MIN_WEIGHT, 0).nan_to_num(0, 0, 0)

    kept = _torch_sparse.heaviest(weights, keep)

    assert _sparse(weights.where(kept, 0), None) == brute_force(rows, keep)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_many_rows_and_none_come_in_order(monkeypatch, dtype):
    """Rows are looked at in parts, and weights of half precision are float32 in a matrix."""
    monkeypatch.setattr(_torch_sparse, "ROWS", 4)
    weights = torch.from_numpy(np.random.default_rng(5).normal(size=(11, 50)).astype(np.float32)).to(dtype)

    for keep in (None, 3):
        for some in (weights, weights[:0]):
            assert _sparse(some, keep) == _sparse(some.float().numpy(), keep)
