"""The two kernels of the forward recursion: sums of probabilities, and which is chosen."""

import pytest
import torch

import pgm
from pgm.families.hmm import HMM
from pgm.inference.chains import kernels
from pgm.randomness import seeded


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", ["scan", "tree"])
@pytest.mark.parametrize("spread", [1.0, 9.0, 60.0])
def test_sums_of_probabilities_are_as_good_as_sums_of_logs(
    monkeypatch: pytest.MonkeyPatch, spread: float, kernel: kernels.Kernel, dtype: torch.dtype
) -> None:
    """Emissions differ by thousands of nats, transitions by many."""
    with seeded(0):
        log_A = kernels.finite_logs(spread * torch.randn(3, 3, dtype=dtype))
        log_b = 2000 * torch.randn(20, 40, 3, dtype=dtype)
    log_pi = torch.zeros(3, dtype=dtype).log_softmax(0)
    found = kernels.log_likelihood(log_pi, log_A, log_b, kernel=kernel)
    assert kernels.is_dense(log_A) or spread > 1
    monkeypatch.setattr(kernels, "is_dense", lambda _: False)
    torch.testing.assert_close(found, kernels.log_likelihood(log_pi, log_A, log_b, kernel=kernel))


def test_the_kernel_is_chosen_by_size() -> None:
    assert kernels._chosen(1, 10_000, 3) == "tree"
    assert kernels._chosen(1, 8, 3) == "scan"
    assert kernels._chosen(1000, 10_000, 5) == "scan"


def test_draws_start_and_move_as_the_tables_say() -> None:
    """Symbols that show their state: counts of first states and of moves, within 4 errors."""
    pi = torch.tensor([0.2, 0.5, 0.3])
    A = torch.tensor([[0.1, 0.8, 0.1], [0.6, 0.1, 0.3], [0, 0, 1]])
    model = HMM.from_tables(pi, A, emission=torch.eye(3), length=4)
    x = pgm.sample(model, 4000, seed=0)["x"]
    first = torch.bincount(x[:, 0], minlength=3) / 4000
    assert ((first - pi).abs() < 4 * (pi * (1 - pi) / 4000).sqrt()).all()
    moves = torch.zeros(3, 3).index_put_(
        (x[:, :-1].flatten(), x[:, 1:].flatten()), torch.ones(12000), accumulate=True
    )
    n = moves.sum(1, keepdim=True)
    assert ((moves / n - A).abs() <= 4 * (A * (1 - A) / n).sqrt()).all()
