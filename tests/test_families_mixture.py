"""Gaussian mixtures: scikit-learn's numbers, labels, missing cells, exact imputation."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal, norm
from sklearn.mixture import GaussianMixture as Theirs
from torch import Tensor

import pgm
from pgm.batch import Batch, as_batch
from pgm.families import mixture
from pgm.families.mixture import GaussianMixture

NAN = float("nan")
COVARIANCES: list[mixture.Covariance] = ["diagonal", "full"]
both = pytest.mark.parametrize("covariance", COVARIANCES)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(covariance: mixture.Covariance, *, features: int = 3, seed: int = 0) -> GaussianMixture:
    """Three components with parameters away from where they start."""
    model = GaussianMixture(features, 3, covariance=covariance)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.copy_(0.7 * draws(*parameter.shape, seed=seed + i))
    return model


def moments(model: GaussianMixture) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    L = model.scale_trils.detach().double()
    return (
        model.weights.detach().double().numpy(),
        model.means.detach().double().numpy(),
        (L @ L.mT).numpy(),
    )


def by_hand(model: GaussianMixture, row: np.ndarray) -> np.ndarray:
    """pi_k N(x_seen; mu_k, Sigma_k) of every component, by scipy."""
    s = ~np.isnan(row)
    if not s.any():
        return moments(model)[0]
    joint = [
        pi * multivariate_normal.pdf(row[s], mu[s], Sigma[np.ix_(s, s)])
        for pi, mu, Sigma in zip(*moments(model), strict=True)
    ]
    return np.array(joint)


@both
def test_scikit_learn_has_the_same_density_and_responsibilities(
    covariance: mixture.Covariance,
) -> None:
    model, x = made(covariance), draws(20, 3, seed=7)
    theirs = Theirs(3, covariance_type="diag" if covariance == "diagonal" else "full")
    theirs.weights_, theirs.means_, Sigma = moments(model)
    precision = np.linalg.inv(np.linalg.cholesky(Sigma)).transpose(0, 2, 1)
    diagonal = precision.diagonal(axis1=1, axis2=2)
    theirs.precisions_cholesky_ = diagonal if covariance == "diagonal" else precision
    answer = pgm.log_prob(model, x)
    assert answer.kind == "exact"
    assert np.allclose(answer.value, theirs.score_samples(x.numpy()), atol=1e-4)
    assert np.allclose(pgm.encode(model, x)["k"], theirs.predict_proba(x.numpy()), atol=1e-5)


@given(
    covariance=st.sampled_from(COVARIANCES),
    seed=st.integers(0, 100),
    hidden=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_missing_cells_are_integrated_out(
    covariance: mixture.Covariance, seed: int, hidden: list[bool]
) -> None:
    model = made(covariance, seed=seed)
    x = draws(4, 3, seed=seed + 9).masked_fill(torch.tensor(hidden).reshape(4, 3), NAN)
    joint = np.array([by_hand(model, row) for row in x.double().numpy()])
    assert np.allclose(pgm.log_prob(model, x).value, np.log(joint.sum(1)), atol=1e-3)
    r = joint / joint.sum(1, keepdims=True)
    assert np.allclose(pgm.encode(model, x)["k"], r, atol=1e-3)


@both
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("labels", [None, [0.0, 2.0, 1.0, 1.0], [NAN, 2.0, NAN, 1.0]])
def test_the_program_and_the_own_density_agree(
    *, covariance: mixture.Covariance, missing: bool, labels: list[float] | None
) -> None:
    model, x = made(covariance), draws(4, 3, seed=7)
    if missing and covariance == "full":
        x[1] = NAN
    elif missing:
        x[0, 1] = x[1] = NAN
    batch = as_batch({"x": x} if labels is None else {"x": x, "k": torch.tensor(labels)})
    generic = pgm.log_weight(model, batch).rows
    assert torch.allclose(pgm.log_prob(model, batch).value, generic, atol=1e-4)
    loss, parameters = pgm.objective(model, batch), list(model.parameters())
    assert torch.allclose(loss, -generic, atol=1e-4)
    own = torch.autograd.grad(loss.sum(), parameters)
    for a, b in zip(own, torch.autograd.grad(-generic.sum(), parameters), strict=True):
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-3)


def test_the_gradient_of_the_loss_vanishes_where_em_stops() -> None:
    """The fixed points of EM are the stationary points of the likelihood (Wu 1983)."""
    x = pgm.data.load("two_moons", n=400).x
    em = Theirs(3, tol=1e-9, max_iter=2000, reg_covar=0, random_state=0).fit(x.double().numpy())
    model = GaussianMixture(2, 3, covariance="full", floor=1e-9).double()
    L = torch.from_numpy(np.linalg.cholesky(em.covariances_))
    parameters = {
        "logits": torch.from_numpy(em.weights_).log(),
        "means": torch.from_numpy(em.means_),
        "log_scales": (L.diagonal(dim1=1, dim2=2) - 1e-9).log(),
        "lower": L.tril(-1),
    }
    model.load_state_dict(parameters)
    loss = pgm.objective(model, x).mean()
    assert loss.item() == pytest.approx(-em.score(x.double().numpy()), abs=1e-6)
    for gradient in torch.autograd.grad(loss, list(model.parameters())):
        assert gradient.abs().max() < 1e-3


def test_a_label_says_which_component_it_was() -> None:
    model, x = made("diagonal"), draws(1, 3)
    joint = torch.tensor(by_hand(model, x[0].double().numpy())).log()
    for k in range(3):
        batch = Batch(x=x, k=torch.tensor([k]))
        assert pgm.log_prob(model, batch).value.item() == pytest.approx(joint[k].item(), abs=1e-4)
        assert pgm.encode(model, batch)["k"].argmax() == k
    with pytest.raises(ValueError, match=r"lie in 3 to 3; they are components.* from 0 to 2"):
        pgm.log_prob(model, Batch(x=x, k=torch.tensor([3])))
    with pytest.raises(ValueError, match=r"shape \(1, 1\)"):
        pgm.encode(model, Batch(x=x, k=torch.tensor([[1]])))


def test_completions_are_draws_from_the_conditional_gaussian() -> None:
    """One component with full covariance: the regression of the missing cell on the seen ones."""
    model = GaussianMixture(3, 1, covariance="full")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * draws(*parameter.shape))
    _, mu, Sigma = (moment[0] for moment in moments(model))
    done = pgm.impute(model, torch.tensor([[0.5, NAN, -1.0]]), draws=5000, seed=0)
    s = [0, 2]
    gain = Sigma[1, s] @ np.linalg.inv(Sigma[np.ix_(s, s)])
    mean, sd = mu[1] + gain @ (np.array([0.5, -1.0]) - mu[s]), (Sigma[1, 1] - gain @ Sigma[s, 1])
    y = done.draws["x"][:, 0, 1]
    assert y.mean().item() == pytest.approx(mean, abs=5 * (sd / 5000) ** 0.5)
    assert y.var().item() == pytest.approx(sd, rel=0.1)


@both
def test_completions_pick_components_by_what_was_seen(covariance: mixture.Covariance) -> None:
    """Two components, apart in the missing cell: its share on each side is p(k | x_seen)."""
    model = GaussianMixture(2, 2, covariance=covariance)
    with torch.no_grad():
        model.means.copy_(torch.tensor([[0.0, -50.0], [1.5, 50.0]]))
    row = torch.tensor([[0.2, NAN]])
    r = norm.pdf(0.2, [0.0, 1.5], 1.001)
    done = pgm.impute(model, row, draws=5000, seed=0)
    below = (done.draws["x"][:, 0, 1] < 0).float().mean().item()
    assert below == pytest.approx(r[0] / r.sum(), abs=0.03)
    labelled = pgm.impute(model, {"x": row, "k": torch.tensor([1])}, draws=50, seed=0)
    assert bool((labelled.draws["x"][..., 1] > 0).all())
    half = pgm.impute(model, {"x": row, "k": torch.tensor([NAN])}, draws=50, seed=0)
    assert torch.equal(half.draws["k"] == 1, half.draws["x"][..., 1] > 0)


def test_complete_rows_come_back_as_they_were() -> None:
    x = draws(5, 3)
    assert torch.equal(pgm.impute(made("full"), x, draws=2)[1]["x"], x)


@both
def test_pieces_that_fit_memory_give_the_same_answer(
    covariance: mixture.Covariance, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = made(covariance), draws(20, 3)
    x[::2, 1] = NAN
    whole = pgm.log_prob(model, x).value
    monkeypatch.setattr(mixture, "_AT_ONCE", 90)
    assert torch.allclose(pgm.log_prob(model, x).value, whole, atol=1e-6)
    assert pgm.impute(model, x, draws=3, seed=0).draws["x"].shape == (3, 20, 3)
    assert pgm.encode(model, x)["k"].shape == (20, 3)


def test_codes_are_probabilities_and_their_draws_are_one_hot() -> None:
    model, x = made("full"), draws(2, 3, seed=5)
    drawn = pgm.encode(model, x, draws=4000, seed=0)["k"]
    assert drawn.shape == (4000, 2, 3)
    assert torch.equal(drawn.sum(-1), torch.ones(4000, 2))
    assert torch.allclose(drawn.mean(0), pgm.encode(model, x)["k"], atol=0.04)


def test_components_are_decoded_to_their_means() -> None:
    model = made("diagonal")
    assert torch.equal(pgm.decode(model, torch.tensor([2, 0]))["x"], model.means[[2, 0]])
    r = torch.tensor([[0.5, 0.5, 0.0]])
    assert torch.allclose(pgm.decode(model, {"k": r})["x"][0], model.means[:2].mean(0))
    for wrong in (torch.tensor([3]), torch.tensor([0.5]), torch.ones(1, 3), torch.ones(1, 2) / 2):
        with pytest.raises(ValueError, match="neither components 0 to 2"):
            pgm.decode(model, wrong)
    with pytest.raises(ValueError, match="'z'"):
        pgm.decode(model, {"z": r})


def test_there_is_no_path_between_components() -> None:
    with pytest.raises(pgm.Unsupported, match=r"cannot interpolate: .* Use a model with continuo"):
        pgm.interpolate(made("full"), torch.zeros(1, 3), torch.ones(1, 3))


@both
def test_clusters_are_a_better_start_than_chance(covariance: mixture.Covariance) -> None:
    x = pgm.data.load("eight_gaussians", n=400).x
    before = torch.get_rng_state()
    model, again = (
        GaussianMixture.from_data(x, 8, covariance=covariance, seed=1) for _ in range(2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    state, repeated = model.state_dict(), again.state_dict()
    assert all(torch.equal(state[name], repeated[name]) for name in state)
    start = pgm.log_prob(model, x).mean[0]
    truth = -np.log(8) - 1 - np.log(2 * np.pi * 0.35**2)
    assert start == pytest.approx(truth, abs=0.15)
    assert pgm.log_prob(GaussianMixture(2, 8, covariance=covariance), x).mean[0] < start - 0.5


@both
def test_one_cluster_starts_at_the_maximum_likelihood(covariance: mixture.Covariance) -> None:
    x = draws(50, 2) @ torch.tensor([[1.0, 0.5], [0.0, 2.0]])
    _, mu, Sigma = moments(GaussianMixture.from_data(x, 1, covariance=covariance, floor=1e-4))
    S = np.cov(x.numpy().T, bias=True)
    assert np.allclose(mu[0], x.mean(0), atol=1e-5)
    assert np.allclose(Sigma[0], S if covariance == "full" else np.diag(np.diag(S)), atol=1e-4)


def test_weights_start_at_the_shares_of_the_clusters() -> None:
    """With one row more in each, so that an empty cluster has a weight too."""
    x = torch.cat([draws(90, 1), 100 + draws(10, 1)])
    weights = GaussianMixture.from_data(x, 2, seed=0).weights.sort().values
    assert weights.tolist() == pytest.approx([11 / 102, 91 / 102], rel=1e-5)


@both
def test_as_many_clusters_as_rows_stay_finite(covariance: mixture.Covariance) -> None:
    x = draws(4, 2)
    model = GaussianMixture.from_data(x, 4, covariance=covariance, seed=0)
    assert pgm.log_prob(model, x).value.isfinite().all()
    pgm.fit(model, x, steps=20, learning_rate=0.1, seed=0, progress=False)
    assert float(model.scales.min().detach()) > model.floor
    assert pgm.log_prob(model, x).value.isfinite().all()


def test_fit_takes_missing_cells_where_the_covariance_is_diagonal() -> None:
    x = pgm.data.load("eight_gaussians", n=200).x
    start = GaussianMixture.from_data(x, 8, seed=0)
    x = x.masked_fill(torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.2, NAN)
    before = pgm.log_prob(start, x).mean[0]
    pgm.fit(start, x, steps=30, learning_rate=0.02, seed=0, progress=False)
    assert pgm.log_prob(start, x).mean[0] > before
    with pytest.raises(pgm.Unsupported, match="Some cells of site 'x' are missing"):
        pgm.fit(made("full", features=2), x, steps=1, progress=False)


@pytest.mark.parametrize(
    ("features", "components", "covariance", "floor", "says"),
    [
        (0, 2, "full", 1e-3, "features is 0"),
        (2, 0, "full", 1e-3, "components 0"),
        (2, 2, "round", 1e-3, "'diagonal' and 'full'"),
        (2, 2, "full", 0.0, "floor is 0.0"),
    ],
)
def test_bad_arguments_are_explained(
    features: int, components: int, covariance: str, floor: float, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        mixture._check(features, components, covariance, floor)


def test_bad_rows_are_explained() -> None:
    model = made("full")
    with pytest.raises(ValueError, match=r"\(2, 1\), but the model's rows have shape \(3,\)"):
        pgm.log_prob(model, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="'y'"):
        pgm.objective(model, Batch(x=torch.zeros(2, 3), y=torch.zeros(2)))
    with pytest.raises(ValueError, match=r"complete rows .* x_seen \(1, 2\)"):
        GaussianMixture.from_data(torch.tensor([[0.0, NAN]]), 1)
    with pytest.raises(ValueError, match="only 3 rows came"):
        GaussianMixture.from_data(draws(3, 2), 4)
