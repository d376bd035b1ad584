"""What the ghost route computes with: norms and sums in factors, and where rows are in a tensor."""

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pgm.randomness import seeded
from privacy.draws import LotDraws, RowDraws
from privacy.gradients.parts import Lookup, Outer, Whole, join
from privacy.layout import Axis, find_axis


@given(
    t=st.integers(1, 6),
    inputs=st.integers(1, 20),
    outputs=st.integers(1, 20),
    offset=st.sampled_from([0.0, 1.0, 1e3, 1e5, 1e7]),
    seed=st.integers(0, 1000),
)
def test_a_norm_never_comes_out_too_small(
    t: int, inputs: int, outputs: int, offset: float, seed: int
) -> None:
    """In float32, though the calls of a row cancel: large inputs, gradients that sum to zero."""
    generator = torch.Generator().manual_seed(seed)
    a = offset + torch.randn(3, t, inputs, generator=generator)
    g = torch.randn(3, t, outputs, generator=generator)
    g = g - g.mean(1, keepdim=True) if t > 1 else g
    exact = torch.linalg.vector_norm((g.double().mT @ a.double()).flatten(1), dim=1)
    found = Outer(a, g, (outputs, inputs)).norms().double()
    assert (found >= exact * (1 - 1e-5)).all()
    if offset == 0.0:
        slack = 2e-3 * (a.norm(dim=2) * g.norm(dim=2)).sum(1)
        assert (found <= exact * (1 + 1e-5) + slack).all()


def test_parts_agree_with_their_gradients_by_row() -> None:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    mask = (normal(4, 3) > 0).double()
    k = torch.randint(5, (6, 7), generator=generator)
    outer = [Outer(normal(6, 2, 3), normal(6, 2, 4), (4, 3)) for _ in range(2)]
    masked = Outer(normal(6, 2, 3), normal(6, 2, 4), (4, 3), mask)
    lookup, table = Lookup(k, normal(6, 7, 3), 5), Whole(normal(6, 5, 3))
    c = normal(6)
    for part in (
        *outer,
        masked,
        lookup,
        join(outer),
        join([lookup, table]),
        join([*outer, masked]),
    ):
        G = part.by_row()
        torch.testing.assert_close(part.norms(), G.flatten(1).norm(dim=1))
        torch.testing.assert_close(part.weighted(c), torch.einsum("i,i...", c, G))
        kept = torch.arange(6) != 2
        assert not part.kept(kept).by_row()[2].any()
        torch.testing.assert_close(part.kept(kept).by_row()[kept], G[kept])
    total = outer[0].by_row() + outer[1].by_row()
    torch.testing.assert_close(join(outer).by_row(), total)


@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    dim=st.integers(0, 3),
    times=st.integers(1, 3),
    n=st.integers(1, 5),
    copies_outside=st.booleans(),
)
def test_the_axis_of_the_rows_is_found_and_turned(
    shape: list[int], dim: int, times: int, n: int, *, copies_outside: bool
) -> None:
    dim = min(dim, len(shape))
    at = [[*shape[:dim], times * rows, *shape[dim:]] for rows in (2, 3, n)]
    axis = find_axis(at[0], at[1], copies_outside=copies_outside)
    assert axis == Axis(dim, times, copies_outside)
    assert axis.fits(at[2], n) and not axis.fits(at[2], n + 1)
    x = torch.randn(at[2])
    first = axis.rows_first(x, n)
    assert first.shape == (n, *axis.of_one_row(at[2]))
    assert torch.equal(axis.in_place(first), x)
    row = x.unflatten(dim, (times, n) if copies_outside else (n, times))
    assert torch.equal(first[n - 1], row.select(dim + copies_outside, n - 1))


def test_a_lot_gets_the_noise_of_its_rows() -> None:
    """Time first, two copies of each row: the same numbers as row by row, each once."""
    tables: dict[Any, Tensor] = {}
    with seeded(0), LotDraws(3, tables, lambda *_: Axis(1, 2)):
        together = torch.distributions.Normal(0.0, 1.0).sample((4, 6))
    assert len(together.unique()) == 24
    for i in range(3):
        with RowDraws(3, torch.tensor([i]), tables):
            alone = torch.distributions.Normal(0.0, 1.0).sample((4, 2))
        assert torch.equal(alone, together[:, [i, 3 + i]])
