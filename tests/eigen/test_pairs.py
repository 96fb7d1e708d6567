"""What a result says of itself."""

import dataclasses

import pytest
import torch

from hbanalysis.eigen import eigsh
from hbanalysis.eigen.pairs import Completeness


@pytest.mark.parametrize(
    ("known", "said", "whether"),
    [
        (Completeness("whole space", True), "complete: the whole space was searched", True),
        (
            Completeness("none", False),
            "not checked: an eigenvalue that the start vector hardly contains may be missing",
            False,
        ),
        (
            Completeness("probe", True, 7, 0.01, (0.0, 1.0)),
            "complete with probability 0.99 (any multiplicity), by a probe of 7 products",
            True,
        ),
        (
            Completeness("probe", False, 7, 0.01, None, 2),
            "not confirmed by a probe of 7 products; it brought 2 to light",
            False,
        ),
    ],
)
def test_completeness_says_what_was_looked_at(known, said, whether):
    assert str(known) == said and bool(known) is whether


def test_a_result_that_has_not_converged_says_so():
    pairs = eigsh(torch.diag(torch.tensor([-3.0, 1.0, 2.0])), 2)
    assert "in 3 products, converged; complete" in repr(pairs)
    assert "in 3 products, not converged; complete" in repr(dataclasses.replace(pairs, converged=False))
