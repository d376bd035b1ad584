"""Log-likelihoods of many sequences under a hidden Markov model, beside hmmlearn.

Prints milliseconds for the log-likelihood of every sequence on one thread, both sides by turns, the
median ratio of the turns, and the largest difference of the two, in nats. hmmlearn is asked for one
sequence at a time, as its `score` gives the sum of several; beside it stands its forward recursion
alone, in log space and with scaling. It is timed where it is installed.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import pgm
from pgm.families.hmm import HMM
from pgm.inference.chains import kernels
from pgm.randomness import seeded

TURNS = 15
CASES = [(1000, 100, 5, "levels"), (1000, 100, 5, "gaussian"), (100, 50, 3, "levels")]
CASES += [(1, 10_000, 3, "levels"), (1000, 100, 20, "levels")]


def main() -> None:
    torch.set_num_threads(1)
    if importlib.util.find_spec("hmmlearn") is None:
        print("hmmlearn is not installed: nothing to compare with.")
        return
    heads = ("pgm", "hmmlearn", "ratio", "gap")
    print(f"{'sequences x steps, states, emission':<44}" + "".join(f"{h:>11}" for h in heads))
    for n, T, S, kind in CASES:
        model = make(S, T, kind)
        x = pgm.sample(model, n, seed=0)["x"]
        title = f"{n} x {T}, {S}, {kind}"
        report(f"{title}: density", ours(model, x), score(theirs(model, kind), x))
        log_b = model.emission.log_prob(x, None).detach()
        for how in ("log", "scaling"):
            recursion = forward(model, log_b, how)
            report(f"{title}: recursion ({how})", kernel(model, log_b), recursion)


def make(S: int, T: int, kind: str) -> HMM:
    """A model of random tables, in float64 as hmmlearn is."""
    with seeded(0):
        shape: dict[str, Any] = {"levels": 8} if kind == "levels" else {"features": 4}
        return HMM(S, T, **shape).double()


def ours(model: HMM, x: Tensor) -> Callable[[], Tensor]:
    return lambda: pgm.log_prob(model, x).value


def kernel(model: HMM, log_b: Tensor) -> Callable[[], Tensor]:
    log_pi, log_A = (t.detach() for t in model.chain.logs)
    return lambda: kernels.log_likelihood(log_pi, log_A, log_b)


def theirs(model: HMM, kind: str) -> Any:
    from hmmlearn.hmm import CategoricalHMM, GaussianHMM

    S = len(model.initial)
    if kind == "levels":
        peer = CategoricalHMM(S, n_features=8)
        peer.emissionprob_ = model.emission.mean().detach().numpy()
    else:
        peer = GaussianHMM(S, "diag")
        peer.means_ = model.emission.mean().detach().numpy()
        peer.covars_ = model.emission.variance().detach().numpy()
    peer.startprob_, peer.transmat_ = (
        p.detach().numpy() for p in (model.initial, model.transition)
    )
    return peer


def score(peer: Any, x: Tensor) -> Callable[[], Tensor]:
    rows = [row.reshape(len(row), -1).numpy() for row in x]
    return lambda: torch.tensor([peer.score(row) for row in rows], dtype=torch.float64)


def forward(model: HMM, log_b: Tensor, how: str) -> Callable[[], Tensor]:
    """hmmlearn's compiled recursion alone, on emissions that are ready."""
    from hmmlearn import _hmmc

    run = _hmmc.forward_log if how == "log" else _hmmc.forward_scaling
    pi, A = (p.detach().numpy() for p in (model.initial, model.transition))
    rows = [row.numpy() if how == "log" else row.exp().numpy() for row in log_b]
    return lambda: torch.tensor([run(pi, A, row)[0] for row in rows], dtype=torch.float64)


def report(title: str, a: Callable[[], Tensor], b: Callable[[], Tensor]) -> None:
    gap = float((a() - b()).abs().max())
    times = [(clock(a), clock(b)) for _ in range(TURNS)]
    left, right = (statistics.median(side) * 1e3 for side in zip(*times, strict=True))
    ratio = statistics.median(b / a for a, b in times)
    print(f"{title:<44}{left:>11.2f}{right:>11.2f}{ratio:>10.1f}x{gap:>11.1e}", flush=True)


def clock(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
