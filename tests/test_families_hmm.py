"""HMM: a published likelihood, all paths enumerated, both kernels, missing steps, EM, forecasts."""

import itertools
import math
from typing import Any

import pyro
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import causal
import pgm
import privacy
from pgm.batch import as_batch
from pgm.families.hmm import HMM, baum_welch
from pgm.inference.chains import kernels
from pgm.inference.chains.emissions import Gaussians
from pgm.inference.chains.questions import (
    filter_states,
    forecast,
    sample_states,
    smooth_states,
    viterbi,
)
from pgm.inference.chains.unrolled import Unrolled
from pgm.randomness import seeded

NAN = float("nan")
PI, A = [0.6, 0.4], [[0.7, 0.3], [0.4, 0.6]]
B = [[0.5, 0.4, 0.1], [0.1, 0.3, 0.6]]
F64 = torch.float64


def known(length: int = 6) -> HMM:
    tables = (torch.tensor(t, dtype=F64) for t in (PI, A, B))
    pi, A_, B_ = tables
    return HMM.from_tables(pi, A_, emission=B_, length=length)


def random(states: int, length: int, seed: int, **shape: Any) -> HMM:
    with seeded(seed):
        model = HMM(states, length, **shape).double()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(torch.randn_like(p))
    return model


def clear(seed: int, **shape: Any) -> HMM:
    """A model whose states last and differ, so that its likelihood has a clear maximum."""
    model = random(2, 12, seed, **shape)
    with torch.no_grad():
        model.transition_logits.copy_(3 * torch.eye(2))
        if isinstance(model.emission, Gaussians):
            model.emission.means.mul_(0.3).add_(torch.tensor([-3.0, 3.0]).reshape(2, 1, 1))
        else:
            model.emission.logits.copy_(torch.tensor([[2.0, 0.0, -1.0], [-1.0, 0.0, 2.0]]))
    return model


@torch.no_grad()
def paths(model: HMM, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """All paths of states, (P, T), and log p(path, x_seen) of one sequence, term by term."""
    S, T = len(model.initial), model.length
    every = torch.tensor(list(itertools.product(range(S), repeat=T)))
    log_joint = torch.zeros(len(every), dtype=F64)
    for p, path in enumerate(every.tolist()):
        total = float(model.initial[path[0]].log())
        for t, s in enumerate(path):
            total += float(model.transition[path[t - 1], s].log()) if t else 0.0
            total += emitted(model, s, x[t], seen[t])
        log_joint[p] = total
    return every, log_joint


def emitted(model: HMM, s: int, x: Tensor, seen: Tensor) -> float:
    if not isinstance(model.emission, Gaussians):
        return float(model.emission.mean()[s, int(x)].log()) if seen else 0.0
    e, density = model.emission, 0.0
    for k, w in enumerate(e.logits[s].softmax(-1).tolist()):
        cells = torch.distributions.Normal(e.means[s, k], e.scales[s, k]).log_prob(x)
        density += w * math.exp(float(cells[seen.reshape(-1)].sum()))
    return math.log(density)


@pytest.mark.parametrize("kernel", ["scan", "tree"])
def test_the_published_sequence(kernel: kernels.Kernel) -> None:
    """log p of 0 1 2 2 1 0, by hand in exact arithmetic (issue 5)."""
    model = known()
    log_b = model.emission.log_prob(torch.tensor([[0, 1, 2, 2, 1, 0]]), None)
    value = kernels.log_likelihood(*model.chain.logs, log_b, kernel=kernel)
    assert value.item() == pytest.approx(-6.519354992902, abs=1e-12)
    own = pgm.log_prob(model, torch.tensor([[0, 1, 2, 2, 1, 0]]))
    assert (own.value.item(), own.kind) == (pytest.approx(-6.519354992902, abs=1e-12), "exact")


@given(
    seed=st.integers(0, 10_000),
    states=st.integers(1, 3),
    kind=st.sampled_from(["levels", "numbers", "vectors"]),
    hidden=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_every_answer_is_that_of_all_paths_enumerated(
    seed: int, states: int, kind: str, hidden: list[bool]
) -> None:
    T = 4
    shapes = {"levels": {"levels": 3}, "numbers": {}, "vectors": {"features": 2, "components": 2}}
    model = random(states, T, seed, **shapes[kind])
    x = pgm.sample(model, 1, seed=seed)["x"]
    seen = ~torch.tensor(hidden[: x[0].numel()]).reshape(x.shape)
    batch = {"x": x, "x_seen": seen}
    every, log_joint = paths(model, x[0], seen[0])
    assert pgm.log_prob(model, batch).value.item() == pytest.approx(log_joint.logsumexp(0).item())
    generic = pgm.log_weight(model, as_batch(batch)).rows.item()
    assert generic == pytest.approx(log_joint.logsumexp(0).item())
    onehot = torch.nn.functional.one_hot(every, states).double()
    gamma = torch.einsum("p,pts->ts", log_joint.softmax(0), onehot)
    torch.testing.assert_close(smooth_states(model, batch)[0], gamma)
    best = viterbi(model, batch)[0]
    index = (every == best).all(-1).nonzero().item()
    assert log_joint[index].item() == pytest.approx(log_joint.max().item())
    until = seen & (torch.arange(T) < 3).reshape(1, T, *[1] * (x.dim() - 2))
    _, log_joint = paths(model, x[0], until[0])
    past = torch.einsum("p,ps->s", log_joint.softmax(0), onehot[:, 2])
    torch.testing.assert_close(filter_states(model, batch)[0, 2], past)


@given(
    seed=st.integers(0, 10_000),
    states=st.integers(1, 4),
    length=st.integers(1, 40),
    zeros=st.booleans(),
)
def test_the_kernels_agree_and_so_do_their_gradients(
    seed: int, states: int, length: int, *, zeros: bool
) -> None:
    """Also where transitions never happen: the chain goes from left to right."""
    model = random(states, length, seed, levels=3)
    x = torch.randint(3, (5, length), generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        never = torch.ones(states, states).tril(-1) > 0
        model.transition_logits.masked_fill_(never & zeros, -torch.inf)
        model.initial_logits[1:] = -torch.inf if zeros else 0.0
    found = []
    for kernel in ("scan", "tree"):
        log_b = model.emission.log_prob(x, None)
        value = kernels.log_likelihood(*model.chain.logs, log_b, kernel=kernel)
        grads = torch.autograd.grad(value.sum(), list(model.parameters()), materialize_grads=True)
        found.append((value, *grads))
    for scan, tree in zip(*found, strict=True):
        assert scan.isfinite().all()
        torch.testing.assert_close(scan, tree)


def test_a_step_far_from_every_state_is_no_underflow() -> None:
    """The state that explains the last step is e^-900 less likely before it: log space keeps it."""
    model = HMM.from_tables(
        [0.5, 0.5], [[1.0, 0.0], [0.0, 1.0]], means=[0.0, 100.0], scales=[1.0, 1.0], length=2
    )
    x = torch.tensor([[0.0, 100.0]])
    expected = math.log(0.5) + 2 * -0.5 * math.log(2 * math.pi) - 5000 + math.log(2)
    assert pgm.log_prob(model, x).value.item() == pytest.approx(expected, rel=1e-6)


def test_a_shorter_sequence_is_one_padded_with_missing_steps() -> None:
    short, long = known(3), known(7)
    x = torch.tensor([[0.0, 2.0, 1.0]])
    padded = torch.cat([x, torch.full((1, 4), NAN)], 1)
    assert pgm.log_prob(short, x).value == pytest.approx(pgm.log_prob(long, padded).value.item())
    torch.testing.assert_close(smooth_states(short, x), smooth_states(long, padded)[:, :3])


def test_paths_are_drawn_from_their_posterior() -> None:
    model, x = known(3), torch.tensor([[0.0, NAN, 2.0]])
    every, log_joint = paths(model, torch.tensor([0, 0, 2]), torch.tensor([True, False, True]))
    z = sample_states(model, x, draws=20_000, seed=0)[:, 0]
    share = (z[:, None] == every).all(-1).double().mean(0)
    torch.testing.assert_close(share, log_joint.softmax(0), atol=0.015, rtol=0)


def test_missing_steps_are_completed_from_their_posterior() -> None:
    model, x = known(3), torch.tensor([[0.0, NAN, 2.0]])
    done = pgm.impute(model, x, draws=20_000, seed=0).draws["x"][:, 0]
    assert (done[:, 0] == 0).all() and (done[:, 2] == 2).all()
    each = torch.tensor([[0, k, 2] for k in range(3)])
    p = pgm.log_prob(model, each).value.softmax(0)
    share = torch.bincount(done[:, 1], minlength=3) / len(done)
    torch.testing.assert_close(share.double(), p, atol=0.015, rtol=0)


def test_a_missing_cell_of_a_mixture_looks_at_the_cell_beside_it() -> None:
    model = HMM(1, 1, features=2, components=2).double()
    with torch.no_grad():
        model.emission.means.copy_(torch.tensor([[[-5.0, -50.0], [5.0, 50.0]]]))
    done = pgm.impute(model, torch.tensor([[[5.0, NAN]]]), draws=200, seed=0).draws["x"]
    assert (done[..., 0, 0, 1] > 40).all()


@pytest.mark.parametrize("shape", [{"levels": 3}, {}, {"features": 2, "components": 2}])
def test_baum_welch_never_falls_and_ends_where_the_gradient_is_zero(shape: dict[str, Any]) -> None:
    source = clear(3, **shape)
    x = pgm.sample(source, 60, seed=1)["x"].double()
    x.view(-1)[::7] = NAN
    x[:5, 9:] = NAN
    model = clear(4, **shape)
    run = baum_welch(model, x, steps=600, tolerance=1e-9)
    gains = torch.tensor(run.log_likelihood, dtype=F64).diff()
    assert (gains > -1e-8).all() and gains[0] > 0.01
    pgm.objective(model, x).mean().backward()
    assert all(p.grad.abs().max() < 5e-3 for p in model.parameters())


def test_padding_changes_nothing_that_baum_welch_learns() -> None:
    x = pgm.sample(known(), 20, seed=0)["x"].double()
    padded = torch.cat([x, torch.full((20, 6), NAN)], 1)
    models = random(2, 6, 7, levels=3), random(2, 12, 7, levels=3)
    for model, data in zip(models, (x, padded), strict=True):
        baum_welch(model, data, steps=5)
    for a, b in zip(*(m.parameters() for m in models), strict=True):
        torch.testing.assert_close(a.softmax(-1), b.softmax(-1))


def test_gradients_climb_to_where_baum_welch_does() -> None:
    """Steps that no sequence shows are no hindrance."""
    x = pgm.sample(clear(0, levels=3), 100, seed=0)["x"].double()
    x[:, ::5] = NAN
    start, other = (clear(1, levels=3) for _ in range(2))
    run = baum_welch(start, x, steps=1000, tolerance=1e-9)
    pgm.fit(other, x, steps=200, learning_rate=0.05, schedule="cosine", seed=0, progress=False)
    assert pgm.log_prob(other, x).value.sum() == pytest.approx(run.log_likelihood[-1], abs=0.05)


def test_a_forecast_is_the_posterior_of_steps_to_come() -> None:
    model, longer = known(3), known(5)
    x = torch.tensor([[0.0, 2.0, 2.0], [NAN, 0.0, NAN]])
    ahead = forecast(model, x, steps=2, draws=20_000, seed=0)
    padded = torch.cat([x, torch.full((2, 2), NAN)], 1)
    states = smooth_states(longer, padded)[:, 3:]
    torch.testing.assert_close(ahead.mean, states @ torch.tensor(B, dtype=F64))
    share = torch.nn.functional.one_hot(ahead.draws, 3).double().mean(0)
    torch.testing.assert_close(share, ahead.mean, atol=0.02, rtol=0)
    both = pgm.impute(longer, padded, draws=20_000, seed=1).draws["x"][:, 0, 3:]
    pairs = torch.bincount(both[:, 0] * 3 + both[:, 1], minlength=9) / len(both)
    drawn = torch.bincount(ahead.draws[:, 0, 0] * 3 + ahead.draws[:, 0, 1], minlength=9) / 20_000
    torch.testing.assert_close(pairs, drawn, atol=0.02, rtol=0)


def test_a_forecast_of_numbers_has_their_spread() -> None:
    model = random(2, 4, 0, features=2, components=2)
    ahead = forecast(model, torch.zeros(1, 4, 2), steps=3, draws=20_000, seed=0)
    torch.testing.assert_close(ahead.draws.mean(0), ahead.mean, atol=0.1, rtol=0)
    torch.testing.assert_close(ahead.draws.std(0), ahead.scale, atol=0.1, rtol=0.03)
    assert "3 steps of 1 sequences" in str(ahead)


def test_what_comes_after_a_sequence_seen_in_part_is_refused() -> None:
    """A filler drawn without a look at the seen steps would reach y, and the number look right."""

    class Below(pgm.Model):
        def __init__(self) -> None:
            super().__init__()
            self.source = known(3)

        def model(self, n: int) -> None:
            with pgm.rows(n):
                x = pyro.sample("x", self.source.chain)
                pyro.sample("y", pyro.distributions.Normal(x.double().sum(-1), 1.0))

    y = torch.zeros(2, dtype=F64)
    whole = {"x": torch.tensor([[0.0, 1.0, 2.0], [NAN, NAN, NAN]]), "y": y}
    assert pgm.log_prob(Below(), whole).value.isfinite().all()
    part = {"x": torch.tensor([[0.0, NAN, 2.0], [0.0, 1.0, 2.0]]), "y": y}
    with pytest.raises(pgm.Unsupported, match="Sample 'x' last"):
        pgm.log_prob(Below(), part)


def test_codes_are_posteriors_and_decode_to_what_they_emit() -> None:
    model, x = known(), torch.tensor([[0, 1, 2, 2, 1, 0]])
    z = pgm.encode(model, x)["z"]
    torch.testing.assert_close(z, smooth_states(model, x))
    mean = pgm.encode(model, x, draws=4000, seed=0)["z"].mean(0)
    torch.testing.assert_close(mean, z, atol=0.03, rtol=0)
    assert pgm.decode(model, torch.eye(2)[[0, 0, 1]].expand(1, 3, 2))["x"].tolist() == [[0, 0, 2]]
    with pytest.raises(ValueError, match=r"shape \(n, T, 2\)"):
        pgm.decode(model, torch.zeros(1, 3))


def test_a_private_fit_learns() -> None:
    x = pgm.sample(known(), 200, seed=0)["x"]
    model = random(2, 6, 1, levels=3).float()
    before = pgm.log_prob(model, x).value.mean()
    privacy.fit(
        model,
        x,
        epsilon=5.0,
        accountant="rdp",
        delta=1e-5,
        steps=15,
        expected_batch_size=50,
        seed=0,
        progress=False,
        learning_rate=0.1,
    )
    assert pgm.log_prob(model, x).value.mean() > before + 0.3


def test_a_start_from_clusters() -> None:
    source = HMM.from_tables(
        [1.0, 0.0], [[0.9, 0.1], [0.1, 0.9]], means=[-4.0, 4.0], scales=[1.0, 1.0], length=20
    )
    x = pgm.sample(source, 50, seed=0)["x"]
    x[0, 3] = NAN
    model = HMM.from_data(x, 2, seed=0)
    assert baum_welch(model, x).converged
    order = model.emission.mean().argsort()
    torch.testing.assert_close(
        model.emission.mean()[order], torch.tensor([-4.0, 4.0]), atol=0.2, rtol=0
    )
    torch.testing.assert_close(
        model.transition[order][:, order], source.transition, atol=0.05, rtol=0
    )
    assert HMM.from_data(x, 2, components=3).emission.means.shape == (2, 3, 1)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda: HMM(0, 5, levels=2), "states 0"),
        (lambda: HMM(2, 5, levels=2, features=1), "Leave out one"),
        (lambda: HMM(2, 5, floor=0.0), "floor is 0.0"),
        (lambda: HMM.from_tables([0.5, 0.6], A, emission=B, length=3), "adds up to 1.1"),
        (lambda: HMM.from_tables(PI, [[0.7, 0.4], [0.3, 0.6]], emission=B, length=3), "transpose"),
        (
            lambda: HMM.from_tables(PI, [[1.2, -0.2], [0.4, 0.6]], emission=B, length=3),
            "row 0 of tr",
        ),
        (lambda: HMM.from_tables(PI, A, emission=[[0.5, 0.5]], length=3), r"\(S, levels\)"),
        (lambda: HMM.from_tables(PI, A, length=3), "Pass what the states emit"),
        (
            lambda: HMM.from_tables(PI, A, means=[0.0, 1.0], scales=[1.0], length=3),
            r"both are \(2,",
        ),
        (lambda: HMM.from_tables(PI, A, means=[0.0, 1.0], scales=[1.0, 0.0], length=3), "positive"),
        (lambda: HMM.from_data(torch.zeros(1, 1), 2), "only 1 complete steps"),
        (lambda: baum_welch(known(), torch.full((2, 6), NAN)), "nothing to learn"),
        (lambda: baum_welch(known(), torch.zeros(2, 6), prior=-1.0), "prior is -1.0"),
        (lambda: pgm.log_prob(known(), torch.tensor([[0, 1, 3, 2, 1, 0]])), "alphabet .* 0 .. 2"),
        (lambda: pgm.log_prob(known(), torch.tensor([[0, 1, 0.5, 2, 1, 0]])), "holds 0.5"),
        (lambda: pgm.log_prob(known(), torch.zeros(1, 5)), r"rows have shape \(6,\)"),
        (lambda: forecast(known(), torch.zeros(1, 6), steps=0), "steps is 0"),
    ],
)
def test_bad_input_is_explained(made: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        made()


def test_an_impossible_sequence_is_explained() -> None:
    model = HMM.from_tables([1.0, 0.0], [[1, 0], [0, 1]], emission=[[1, 0], [0, 1]], length=2)
    x = torch.tensor([[0, 1]])
    assert pgm.log_prob(model, x).value.item() == -math.inf
    for verb in (smooth_states, filter_states, viterbi, sample_states):
        with pytest.raises(ValueError, match="probability zero"):
            verb(model, x)
    with pytest.raises(pgm.Unsupported, match=r"Use pgm\.families\.hmm\.HMM"):
        viterbi(pgm.families.example("kde").model, torch.zeros(1, 2))


@pytest.mark.parametrize("shape", [{"levels": 3}, {}, {"features": 2, "components": 2}])
def test_a_chain_written_out_is_the_same_model_step_by_step(shape: dict[str, Any]) -> None:
    model = random(2, 4, 0, **shape)
    x = pgm.sample(model, 3, seed=0)["x"]
    steps = {f"x{t}": x[:, t] for t in range(4)}
    written = pgm.log_prob(Unrolled(model), steps)
    assert written.kind == "exact"
    torch.testing.assert_close(written.value, pgm.log_prob(model, x).value)


def test_an_intervention_on_a_state_reaches_what_comes_after_it() -> None:
    """do(z1 = 1): p(x2 = 0) is A[1] B[:, 0], and what came before is as it was."""
    held = causal.do(Unrolled(known(3)), z1=1)
    x0, x2 = ({name: torch.tensor([0])} for name in ("x0", "x2"))
    pi, A_, B_ = (torch.tensor(t, dtype=F64) for t in (PI, A, B))
    assert pgm.log_prob(held, x2).value.exp().item() == pytest.approx((A_[1] @ B_[:, 0]).item())
    assert pgm.log_prob(held, x0).value.exp().item() == pytest.approx((pi @ B_[:, 0]).item())
    both = pgm.log_prob(held, x0 | x2).value.exp().item()
    assert both == pytest.approx(((pi @ B_[:, 0]) * (A_[1] @ B_[:, 0])).item())
    with pytest.raises(TypeError, match=r"Pass a pgm\.families\.hmm\.HMM"):
        Unrolled(pgm.families.example("kde").model)
