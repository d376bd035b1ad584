"""Factor analysis and PPCA: the Gaussian they are, the exact posterior, the closed-form maximum."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn import datasets, decomposition
from sklearn.decomposition import PCA
from torch import Tensor

import pgm
from pgm.batch import Batch, as_batch, take
from pgm.families.factor import PPCA, FactorAnalysis

NAN = float("nan")


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(cls: type[FactorAnalysis], features: int, latents: int, seed: int = 0) -> FactorAnalysis:
    """A model with parameters away from where they start."""
    model = cls(features, latents)
    with torch.no_grad():
        for i, parameter in enumerate(model.parameters()):
            parameter.copy_(0.7 * draws(*parameter.shape, seed=seed + i))
    return model


def covariance(model: FactorAnalysis) -> np.ndarray:
    W = model.loading.detach().double()
    psi = model.noise.detach().double() ** 2
    return (W @ W.T + torch.diag(psi)).numpy()


def by_hand(model: FactorAnalysis, x: Tensor) -> list[float]:
    """log N of the seen cells of every row, by scipy."""
    mu, C, out = model.mean.detach().double().numpy(), covariance(model), []
    for row in x.double().numpy():
        s = ~np.isnan(row)
        out.append(multivariate_normal.logpdf(row[s], mu[s], C[np.ix_(s, s)]) if s.any() else 0.0)
    return out


@given(
    cls=st.sampled_from([PPCA, FactorAnalysis]),
    sizes=st.tuples(st.integers(1, 4), st.integers(0, 3)).map(lambda s: (s[0] + s[1], s[0])),
    seed=st.integers(0, 100),
    share=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_the_density_is_that_of_the_gaussian_of_the_seen_cells(
    cls: type[FactorAnalysis], sizes: tuple[int, int], seed: int, share: float
) -> None:
    model = made(cls, *sizes, seed=seed)
    x = 2 * draws(4, sizes[0], seed=seed + 9)
    hidden = torch.rand(x.shape, generator=torch.Generator().manual_seed(seed)) < share
    x = x.masked_fill(hidden, NAN)
    answer = pgm.log_prob(model, x)
    assert answer.kind == "exact"
    assert answer.value.tolist() == pytest.approx(by_hand(model, x), abs=2e-4, rel=1e-4)


@given(seed=st.integers(0, 100), missing=st.booleans())
def test_every_importance_weight_is_the_density(*, seed: int, missing: bool) -> None:
    """The guide is the posterior: log p(x, z) - log q(z | x) is log p(x) for any z."""
    model = made(FactorAnalysis, 4, 2, seed=seed)
    x = draws(5, 4, seed=seed + 9)
    x[2, 1] = x[3] = NAN if missing else 0.0
    batch = as_batch(x)
    own = pgm.log_prob(model, batch).value
    weights = pgm.log_weight(model, batch, particles=3).rows
    assert torch.allclose(weights, own.expand(3, 5), atol=1e-3)


def test_the_bound_has_the_gradient_of_the_density() -> None:
    model, batch = made(FactorAnalysis, 3, 2), as_batch(draws(6, 3, seed=4))
    own = torch.autograd.grad(pgm.objective(model, batch).sum(), list(model.parameters()))
    bound = -pgm.log_weight(model, batch).rows.sum()
    for a, b in zip(own, torch.autograd.grad(bound, list(model.parameters())), strict=True):
        assert torch.allclose(a, b, atol=1e-3, rtol=1e-3)


def test_the_posterior_is_that_of_tipping_and_bishop() -> None:
    """Eq. 6: z | x ~ N(M^-1 W^T (x - mu), sigma^2 M^-1), M = W^T W + sigma^2 I."""
    model, x = made(PPCA, 4, 2), draws(3, 4, seed=5)
    W, sigma2 = model.loading, model.noise[0] ** 2
    inverse = torch.linalg.inv(W.T @ W + sigma2 * torch.eye(2))
    m, S = model.posterior(x)
    assert torch.allclose(m, (x - model.mean) @ W @ inverse, atol=1e-5)
    assert torch.allclose(S @ S.T, sigma2 * inverse, atol=1e-5)
    assert torch.allclose(pgm.encode(model, x)["z"], m, atol=1e-6)
    assert torch.equal(S, S.tril())


def test_the_posterior_forgets_what_was_not_seen() -> None:
    model, x = made(FactorAnalysis, 3, 2), draws(2, 3, seed=5)
    seen = torch.tensor([[True, False, True], [False, False, False]])
    m, S = model.posterior(x, seen)
    kept = FactorAnalysis(2, 2)
    kept.load_state_dict({k: v[[0, 2]] for k, v in model.state_dict().items()})
    m_kept, S_kept = kept.posterior(x[:1, [0, 2]])
    assert torch.allclose(m[:1], m_kept, atol=1e-6)
    assert torch.allclose(S[0], S_kept, atol=1e-6)
    assert torch.equal(m[1], torch.zeros(2))
    assert torch.allclose(S[1], torch.eye(2))


def test_the_closed_form_is_the_maximum_likelihood() -> None:
    """Tipping & Bishop (1999), eqs 7 and 8; scikit-learn has the same with n - 1 for n."""
    x = draws(300, 5, seed=1) @ draws(5, 5, seed=2) + draws(5, seed=3)
    model = PPCA.closed_form(x, latents=2)
    pca = PCA(2).fit(x.numpy())
    theirs = pca.get_covariance() * 299 / 300
    assert np.allclose(covariance(model), theirs, rtol=1e-3, atol=1e-4)
    assert np.allclose(model.mean.detach(), pca.mean_, atol=1e-5)
    loss = pgm.objective(model, x).mean()
    for gradient in torch.autograd.grad(loss, list(model.parameters())):
        assert gradient.abs().max() < 1e-4
    C, S = theirs, np.cov(x.numpy().T, bias=True)
    eq4 = 0.5 * (5 * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + np.trace(np.linalg.inv(C) @ S))
    assert loss.item() == pytest.approx(eq4, rel=1e-5)


def table(name: str) -> np.ndarray:
    """Wine (178 x 13) or diabetes (442 x 10), in standard units."""
    x = getattr(datasets, f"load_{name}")().data
    return np.asarray((x - x.mean(0)) / x.std(0))


@pytest.mark.parametrize("latents", [1, 2])
def test_the_likelihood_of_wine_is_that_of_scikit_learn(latents: int) -> None:
    x = table("wine")
    peer = decomposition.FactorAnalysis(latents, tol=1e-12, max_iter=2000, svd_method="lapack")
    theirs = peer.fit(x).score(x)
    model = FactorAnalysis.from_data(torch.from_numpy(x), latents)
    loss = pgm.objective(model, torch.from_numpy(x)).mean()
    assert -loss.item() == pytest.approx(theirs, abs=1e-9)
    assert np.allclose(covariance(model), peer.get_covariance(), atol=1e-4)
    for gradient in torch.autograd.grad(loss, list(model.parameters())):
        assert gradient.abs().max() < 1e-5


@pytest.mark.parametrize(("name", "latents"), [("wine", 4), ("diabetes", 1), ("diabetes", 3)])
@pytest.mark.filterwarnings("ignore:FactorAnalysis did not converge")
def test_a_heywood_case_ends_no_lower_than_scikit_learn(name: str, latents: int) -> None:
    """A noise at its bound; one start alone missed it by .03 nats a row on diabetes."""
    x = table(name)
    peer = decomposition.FactorAnalysis(latents, tol=1e-12, max_iter=400, svd_method="lapack")
    model = FactorAnalysis.from_data(torch.from_numpy(x), latents)
    ours = pgm.log_prob(model, torch.from_numpy(x)).value.mean().item()
    assert peer.fit(x).score(x) < ours < peer.score(x) + 0.01
    assert model.noise.min().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("latents", [1, 4, 12])
def test_the_closed_form_on_wine_is_that_of_scikit_learn(latents: int) -> None:
    """Its covariance has n - 1 for n: the rows are drawn together by as much first."""
    x = table("wine")
    peer = PCA(latents).fit(x * (177 / 178) ** 0.5)
    model = PPCA.from_data(torch.from_numpy(x), latents)
    ours = pgm.log_prob(model, torch.from_numpy(x)).value.mean().item()
    assert ours == pytest.approx(peer.score(x), abs=1e-6)


def test_units_and_places_of_the_columns_change_the_factors_alone() -> None:
    x = torch.from_numpy(table("wine"))
    unit, place = torch.logspace(-3, 3, 13).double(), torch.linspace(-50, 50, 13).double()
    model, other = (FactorAnalysis.from_data(y, 3) for y in (x, unit * x + place))
    W = other.loading / unit[:, None]
    assert torch.allclose(W @ W.T, model.loading @ model.loading.T, atol=1e-5)
    assert torch.allclose(other.noise / unit, model.noise, atol=1e-5)


def test_a_factor_too_many_explains_nothing() -> None:
    """Two columns that are independent: the second of one latent's loadings is zero, or both."""
    x = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]).double()
    model = FactorAnalysis.from_data(x, 1)
    assert np.allclose(covariance(model), np.eye(2), atol=1e-5)


def test_fit_reaches_the_closed_form() -> None:
    x = draws(200, 3, seed=1) @ draws(3, 3, seed=2)
    best = pgm.objective(PPCA.closed_form(x, latents=1), x).mean().item()
    model = PPCA(3, 1)
    pgm.fit(model, x, steps=300, learning_rate=0.05, schedule="cosine", batch_size=200, seed=0)
    assert best <= pgm.objective(model, x).mean().item() <= best + 1e-3


def test_fit_with_missing_cells_reaches_andersons_estimates() -> None:
    """A second column that is missing more often where the first is high.

    The maximum likelihood is the regression of the seen second cells on the first, and the first's
    own mean and variance (Anderson 1957); the mean of the seen cells would be wrong.
    """
    x = draws(300, 2, seed=1) @ torch.tensor([[1.0, 0.8], [0.0, 0.6]])
    hidden = x[:, 0] > 0.3
    a, b = x[~hidden, 0], x[~hidden, 1]
    slope = ((a - a.mean()) * (b - b.mean())).mean() / a.var(correction=0)
    mean = b.mean() + slope * (x[:, 0].mean() - a.mean())
    assert abs(mean - b.mean()) > 0.3
    x[hidden, 1] = NAN
    model = FactorAnalysis(2, 1)
    options = {"steps": 500, "learning_rate": 0.05, "schedule": "cosine", "batch_size": 300}
    pgm.fit(model, x, progress=False, seed=0, **options)
    assert model.mean[1].item() == pytest.approx(mean.item(), abs=0.01)
    C = covariance(model)
    assert C[0, 1] / C[0, 0] == pytest.approx(slope.item(), abs=0.01)
    assert C[0, 0] == pytest.approx(x[:, 0].var(correction=0).item(), rel=0.02)


def test_completions_are_draws_from_the_conditional_gaussian() -> None:
    model = made(FactorAnalysis, 3, 2)
    x = torch.tensor([[0.5, NAN, -1.0]])
    done = pgm.impute(model, x, draws=4000, particles=8000, seed=0)
    mu, C = model.mean.detach().numpy(), covariance(model)
    s, gain = [0, 2], C[1, [0, 2]] @ np.linalg.inv(C[np.ix_([0, 2], [0, 2])])
    mean = mu[1] + gain @ (x[0, s].numpy() - mu[s])
    sd = (C[1, 1] - gain @ C[s, 1]) ** 0.5
    y = done.draws["x"][:, 0, 1]
    assert y.mean().item() == pytest.approx(mean, abs=5 * sd / 4000**0.5)
    assert y.std().item() == pytest.approx(sd, rel=0.06)
    assert done.ess.item() == pytest.approx(8000, rel=1e-3)


def test_codes_are_decoded_to_means() -> None:
    model, z = made(PPCA, 3, 2), draws(4, 2)
    expected = z @ model.loading.T + model.mean
    assert torch.allclose(pgm.decode(model, z)["x"], expected)


def test_the_posterior_holds_where_the_noise_is_small() -> None:
    """In single precision, with noise 1e-3 of the signal: no cancellation."""
    model = made(PPCA, 6, 2)
    with torch.no_grad():
        model.log_noise.fill_(np.log(1e-3))
    x = pgm.sample(model, 20, seed=0)["x"]
    wrong = torch.tensor(by_hand(model, x)) - pgm.log_prob(model, x).value
    assert wrong.abs().max() < 0.05


@pytest.mark.parametrize("cls", [PPCA, FactorAnalysis])
@pytest.mark.parametrize(("features", "latents"), [(2, 3), (2, 0), (0, 0), (3, -1)])
def test_bad_sizes_are_explained(cls: type[FactorAnalysis], features: int, latents: int) -> None:
    with pytest.raises(ValueError, match=f"{latents} latents for {features} features"):
        cls(features, latents)


def test_bad_rows_of_the_closed_form_are_explained() -> None:
    with pytest.raises(ValueError, match=r"missing cells\. Drop the incomplete rows, or use pgm.f"):
        PPCA.closed_form(torch.tensor([[0.0, NAN]]), latents=1)
    with pytest.raises(ValueError, match=r"Batch\(x \(3,\)\) came"):
        PPCA.closed_form(torch.zeros(3), latents=1)
    with pytest.raises(ValueError, match="leave nothing to the noise"):
        PPCA.closed_form(draws(2, 3), latents=1)
    with pytest.raises(ValueError, match="leave nothing to the noise"):
        PPCA.closed_form(draws(9, 2), latents=2)


@pytest.mark.parametrize(
    ("x", "latents", "says"),
    [
        (torch.tensor([[0.0, NAN]]), 1, "missing cells"),
        (torch.ones(9, 2), 1, "a column is constant"),
        (draws(3, 3), 1, "rows are no more than features"),
        (draws(9, 2), 2, "latents as many"),
    ],
)
def test_bad_rows_of_the_maximum_are_explained(x: Tensor, latents: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        FactorAnalysis.from_data(x, latents)


def test_bad_rows_are_explained() -> None:
    model, batch = PPCA(3, 1), Batch(x=torch.zeros(2, 3), z=torch.zeros(2, 1))
    with pytest.raises(ValueError, match="'z'"):
        pgm.log_prob(model, batch)
    with pytest.raises(ValueError, match=r"\(2, 1\), but the model's rows have shape \(3,\)"):
        pgm.log_prob(model, torch.zeros(2, 1))
    with pytest.raises(ValueError, match="'x'"):
        pgm.log_prob(model, Batch(y=torch.zeros(2)))
    with pytest.raises(ValueError, match=r"a row of it has shape \(3,\)"):
        pgm.log_weight(model, take(as_batch(torch.zeros(2, 1)), slice(2)))
