"""Gaussian and t copulas: marginal laws of the columns, tied by the correlation of their scores.

    F(x) = C(F_1(x_1), ..., F_d(x_d)),    C the copula of N(0, R) or of t_nu(0, R)

(Sklar 1959; Joe 2014, Sec. 2.6 and 2.7; Demarta & McNeil 2005, "The t copula and related copulas").
The Gaussian copula has no tail dependence; that of the t copula is

    lambda = 2 T_{nu+1}(-sqrt((nu + 1) (1 - rho) / (1 + rho)))    (Demarta & McNeil 2005)

for both tails. Columns are continuous: of discrete ones the copula is not unique, and the density
at the scores of one transform would be that of another model (Genest & Neslehova 2007).
"""

import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import pyro
import pyro.distributions as dist
import torch
from jaxtyping import Bool, Float
from pyro.distributions import TorchDistribution
from torch import Size, Tensor, nn
from torch.distributions import constraints

from pgm.batch import Batch, cells, chunks
from pgm.data import load
from pgm.families import Example
from pgm.inference import normal
from pgm.inference.copulas.checks import check_columns, check_rows, filled, read
from pgm.inference.copulas.dependence import (
    below_of,
    from_kendall,
    log_gaussian,
    log_student,
    maximise,
    unit_rows,
)
from pgm.inference.copulas.marginals import Law, Marginals, start, to_line
from pgm.model import Model, rows
from pgm.noise.quantiles import normal_score, quantile
from pgm.objectives import objective
from pgm.schema import Schema
from pgm.verbs import Imputation, LogProb, decode, encode, impute, log_prob

__all__ = ["GaussianCopula", "Law", "TCopula", "example"]

C = TypeVar("C", bound="GaussianCopula")
_AT_ONCE = 2**22
_MOST = {"below": 50.0, "log_df": math.log(500.0)}
"""How far the estimates go: beyond, a correlation is 1, and a t copula Gaussian, to rounding."""


class GaussianCopula(Model):
    """Continuous columns whose normal scores are jointly normal (Joe 2014, Sec. 4.3).

    With normal marginals it is the multivariate normal. Missing cells are integrated out
    everywhere. Kernel marginals keep the rows that they were built from: such a model is not
    private, and its bandwidths stay as they are when it is trained.

    Args:
        features: d, the columns, two or more.
        marginals: "normal", "student" or "kernel"; within its bounds a column follows it on the
            log or logit scale (Johnson 1949).
        lower: a bound below for each column, None for none; by default none at all.
        upper: bounds above.
        points: for "kernel", rows without missing cells, shape (N, d), within the bounds.

    Attributes:
        marginals: the laws of the columns.
        below: free numbers, which give R its Cholesky factor below the diagonal (d (d - 1) / 2,).

    Raises:
        ValueError: fewer than two features, bounds that do not fit, an unknown law, or points that
            are missing, not asked for, or on a bound.

    Example:
        >>> model = GaussianCopula(2)
        >>> with torch.no_grad():
        ...     model.below[0] = 0.75  # rho = .75 / sqrt(1 + .75^2) = .6
        >>> log_prob(model, torch.tensor([[1.0, -1.0]])).value  # N([1, -1]; 0, [[1, .6], [.6, 1]])
        tensor([-4.1147])
        >>> model.kendall[0, 1]
        tensor(0.4097, grad_fn=<SelectBackward0>)
    """

    def __init__(
        self,
        features: int,
        *,
        marginals: Law = "normal",
        lower: Sequence[float | None] | None = None,
        upper: Sequence[float | None] | None = None,
        points: Tensor | None = None,
    ) -> None:
        super().__init__()
        a, b = check_columns(features, marginals, lower, upper, points)
        on_line = None if points is None else to_line(points, a.to(points), b.to(points))[0]
        self.features = features
        self.marginals = Marginals(marginals, a, b, on_line)
        self.below = nn.Parameter(torch.zeros(features * (features - 1) // 2))

    @classmethod
    def from_data(
        cls: type[C], data: Any, *, marginals: Law = "kernel", schema: Schema | None = None
    ) -> C:
        """A copula estimated from rows, in three steps; missing cells are left out of each.

        The marginals by maximum likelihood, or kernels on the rows; R by inverting Kendall's tau;
        then R, and the degrees of freedom of a t copula, by maximum likelihood given the marginals
        (inference functions for margins, Joe 2005; with kernels near the semiparametric estimate of
        Genest, Ghoudi & Rivest 1995). Computed without noise, so it is not private.

        Args:
            data: rows at "x", shape (n, d), or a frame of continuous columns.
            marginals: the law of the columns.
            schema: of the frame, with the bounds that are known of its columns; else inferred.

        Raises:
            ValueError: fewer than ten rows, categorical or count columns, columns whose values
                repeat as those of discrete ones do, constant columns, or cells on a bound.

        Example:
            >>> model = GaussianCopula.from_data(load("two_moons", n=300).x)
            >>> model.correlation[0, 1]
            tensor(-0.43, grad_fn=<SelectBackward0>)
        """
        x, schema, a, b = read(data, schema)
        check_rows(x, a, b, schema)
        lower, upper = ([v if math.isfinite(v) else None for v in t.tolist()] for t in (a, b))
        points = filled(x) if marginals == "kernel" else None
        model = cls(x.shape[1], marginals=marginals, lower=lower, upper=upper, points=points).to(x)
        start(model.marginals, x)
        model.schema = schema
        _climb(model, x)
        return model

    @property
    def correlation(self) -> Float[Tensor, "d d"]:
        """R, the correlation of the scores."""
        root = unit_rows(self.below, self.features)
        return root @ root.T

    @property
    def kendall(self) -> Float[Tensor, "d d"]:
        """Kendall's tau of the columns by pairs, 2 / pi arcsin(rho), whatever the marginals."""
        return 2 / math.pi * self.correlation.clamp(-1, 1).arcsin()

    @property
    def tail_dependence(self) -> Float[Tensor, "d d"]:
        """lambda by pairs, the limit of P(one column is beyond its quantile | the other is)."""
        return torch.eye(self.features).to(self.below)

    def model(self, n: int) -> None:
        """x ~ the copula with its marginals, one site."""
        with rows(n):
            pyro.sample("x", CopulaLaw(self).expand([n]))

    def infer_schema(self, frame: Any) -> Schema:
        """How `pgm.fit` reads a frame: standardised, all columns at "x"."""
        return Schema.infer(frame, standardise=True, site="x")

    def scores(self, z: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """The scores that R correlates, from normal scores z: here the same."""
        return z

    def normal_scores(self, w: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """The inverse of `scores`."""
        return w

    def log_copula(self, w: Float[Tensor, "n d"], seen: Bool[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """log density of the copula at the seen scores."""
        return log_gaussian(w, seen, self.correlation)

    def stretch(
        self, squares: Float[Tensor, "*n"], seen: Float[Tensor, "*n"]
    ) -> Float[Tensor, "*n"]:
        """What a normal draw is multiplied by, given the distance of so many seen scores: 1."""
        return torch.ones_like(squares)


class TCopula(GaussianCopula):
    """Continuous columns with the dependence of Student's t (Demarta & McNeil 2005).

    With Student marginals of the same degrees of freedom it is the multivariate t.

    Args:
        features: d, the columns, two or more.
        marginals: as of `GaussianCopula`.
        lower: a bound below for each column, None for none; by default none at all.
        upper: bounds above.
        points: for "kernel", rows without missing cells, shape (N, d), within the bounds.
        df: nu, where training starts.

    Attributes:
        log_df: log nu.

    Raises:
        ValueError: as `GaussianCopula`, or df that is not positive.

    Example:
        >>> model = TCopula(2, df=4.0)
        >>> with torch.no_grad():
        ...     model.below[0] = 0.57735  # rho = .5
        >>> model.tail_dependence[0, 1]  # 2 T_5(-sqrt(5 / 3))
        tensor(0.2532, grad_fn=<SelectBackward0>)
    """

    def __init__(
        self,
        features: int,
        *,
        marginals: Law = "normal",
        lower: Sequence[float | None] | None = None,
        upper: Sequence[float | None] | None = None,
        points: Tensor | None = None,
        df: float = 8.0,
    ) -> None:
        super().__init__(features, marginals=marginals, lower=lower, upper=upper, points=points)
        if not 0 < df < math.inf:
            raise ValueError(f"df is {df}; degrees of freedom are positive and finite.")
        self.log_df = nn.Parameter(torch.tensor(float(df)).log())

    @property
    def df(self) -> Float[Tensor, ""]:
        """nu, the degrees of freedom."""
        return self.log_df.exp()

    @property
    def tail_dependence(self) -> Float[Tensor, "d d"]:
        """2 T_{nu+1}(-sqrt((nu + 1) (1 - rho) / (1 + rho))) by pairs (Demarta & McNeil 2005)."""
        rho, df = self.correlation.clamp(-1, 1), self.df
        t = -((df + 1) * (1 - rho) / (1 + rho)).clamp(min=0).sqrt()
        return 2 * torch.special.log_ndtr(normal_score("student", t, df + 1)).exp()

    def scores(self, z: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """w = T_nu^-1(Phi(z)); the ends of double precision, |z| = 37, stand for all beyond."""
        w = quantile("student", z.clamp(-37, 37), self.df.to(z))
        return w.clamp(-1e150, 1e150) if w.dtype == torch.float64 else w

    def normal_scores(self, w: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """z = Phi^-1(T_nu(w))."""
        return normal_score("student", w, self.df)

    def log_copula(self, w: Float[Tensor, "n d"], seen: Bool[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """log density of the copula at the seen scores."""
        return log_student(w, seen, self.correlation, self.df)

    def stretch(
        self, squares: Float[Tensor, "*n"], seen: Float[Tensor, "*n"]
    ) -> Float[Tensor, "*n"]:
        """sqrt((nu + |u|^2) / v), v ~ chi^2 with nu + seen degrees of freedom (Ding 2016)."""
        return ((self.df + squares) / dist.Chi2(self.df + seen).sample()).sqrt()


class CopulaLaw(TorchDistribution):
    """The law of a row of a copula.

    Args:
        copula: whose parameters are read when they are needed.
        batch_shape: as of any distribution.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012 (torch reads it from the class)

    def __init__(self, copula: GaussianCopula, *, batch_shape: Sequence[int] = ()) -> None:
        self.copula = copula
        super().__init__(Size(batch_shape), Size([copula.features]), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """Rows of numbers within their bounds."""
        a, b = self.copula.marginals.lower, self.copula.marginals.upper
        free = not bool((a.isfinite() | b.isfinite()).any())
        return constraints.independent(constraints.real if free else constraints.interval(a, b), 1)

    def log_prob(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n"]:
        """log c(scores) + sum_j log f_j(x_j)."""
        seen = torch.ones_like(x, dtype=torch.bool).flatten(0, -2)
        log_p = _log_density(self.copula, x.flatten(0, -2), seen).reshape(x.shape[:-1])
        return log_p.expand(torch.broadcast_shapes(log_p.shape, self.batch_shape))

    def sample(self, sample_shape: Sequence[int] = Size()) -> Float[Tensor, "*n d"]:
        """Correlated scores, brought to the columns."""
        copula, shape = self.copula, (*sample_shape, *self.batch_shape)
        with torch.no_grad():
            none = torch.zeros(shape).to(copula.below)
            g = torch.randn(*shape, copula.features).to(none)
            w = g @ unit_rows(copula.below, copula.features).T
            w = w * copula.stretch(none, none).unsqueeze(-1)
            return copula.marginals.inverse(copula.normal_scores(w))

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "CopulaLaw":
        """The same law for each of a batch of rows."""
        return CopulaLaw(self.copula, batch_shape=batch_shape)


def example() -> Example:
    """Two moons as an ellipse with tails."""
    x = load("two_moons", n=500).x
    return Example(TCopula(2), x, fit={"steps": 100, "learning_rate": 0.05})


@objective.register(GaussianCopula)
def _loss(model: GaussianCopula, batch: Batch, *, size: int | None = None) -> Float[Tensor, " n"]:
    """-log p of the seen cells, exact."""
    return -_log_density(model, *_cells(model, batch))


@log_prob.register(GaussianCopula)
def _density(model: GaussianCopula, batch: Batch, *, particles: int = 100) -> LogProb:
    """log p of the seen cells, exact: the copula of some columns is of the same kind."""
    value = torch.cat([_log_density(model, *_cells(model, p)) for p in _pieces(model, batch)])
    return LogProb(value, torch.zeros_like(value), "exact")


@impute.register(GaussianCopula)
def _complete(
    model: GaussianCopula, batch: Batch, *, draws: int = 5, particles: int = 200
) -> Imputation:
    """Exact draws: the scores given the seen ones are normal, or t with nu + seen (Ding 2016)."""
    pieces = [_draw(model, *_cells(model, p), draws) for p in _pieces(model, batch, draws)]
    x = torch.cat(pieces, 1)
    return Imputation(Batch(x=x), model.below.new_full((x.shape[1],), particles))


for verb in (encode, decode):
    verb.refuse(
        GaussianCopula,
        "its scores are the row itself in other units, and no latent code. Use "
        "pgm.families.factor.FactorAnalysis for codes, or pgm.families.flow.SplineFlow.",
    )


def _draw(
    model: GaussianCopula, x: Float[Tensor, "n d"], seen: Bool[Tensor, "n d"], draws: int
) -> Float[Tensor, "draws n d"]:
    z, log_f = model.marginals.scores(x)
    _check_possible(log_f.masked_fill(~seen, 0.0).sum(-1))
    w, R = model.scores(z), model.correlation.expand(len(x), -1, -1)
    squares = normal.whitened(w, seen, normal.seen_root(R, seen)).square().sum(-1)
    centre = normal.conditional(w, seen, torch.zeros_like(w), R)[0]
    free = torch.randn(draws, *w.shape).to(w) @ unit_rows(model.below, model.features).T
    around = normal.conditional_draw(torch.zeros_like(w), seen, free, R)
    stretch = model.stretch(squares.expand(draws, -1), seen.to(w).sum(-1).expand(draws, -1))
    drawn = model.marginals.inverse(model.normal_scores(centre + stretch.unsqueeze(-1) * around))
    return torch.where(seen, x, drawn)


def _log_density(
    model: GaussianCopula, x: Float[Tensor, "n d"], seen: Bool[Tensor, "n d"]
) -> Float[Tensor, " n"]:
    z, log_f = model.marginals.scores(x)
    log_c = model.log_copula(model.scores(z.double()), seen)  # the square of a far t is vast
    return log_c.to(x) + torch.where(seen, log_f, 0.0).sum(-1)


def _climb(model: GaussianCopula, x: Float[Tensor, "n d"]) -> None:
    """Maximum likelihood of the dependence given the marginals, from Kendall's tau."""
    seen = ~x.isnan()
    with torch.no_grad():
        model.below.copy_(below_of(from_kendall(x)))
        z = model.marginals.scores(torch.where(seen, x, 0.0))[0].double()
    precise = copy.deepcopy(model).double()
    own = {name: p for name, p in precise.named_parameters() if "." not in name}

    def value() -> Float[Tensor, ""]:
        return precise.log_copula(precise.scores(z), seen).mean()

    maximise(value, {p: _MOST[name] for name, p in own.items()})
    model.load_state_dict(precise.state_dict())


def _cells(model: GaussianCopula, batch: Batch) -> tuple[Float[Tensor, "n d"], Bool[Tensor, "n d"]]:
    x, seen = cells(batch, "x", (model.features,))
    x = x.to(model.dtype)
    return x, torch.ones_like(x, dtype=torch.bool) if seen is None else seen


def _pieces(model: GaussianCopula, batch: Batch, times: int = 1) -> Iterator[Batch]:
    """The rows in pieces whose matrices, or differences from all kernels, fit memory."""
    held = model.marginals.points.numel() if model.marginals.law == "kernel" else 0
    return chunks(batch, max(1, _AT_ONCE // (times * max(held, model.features**2))))


def _check_possible(log_f: Float[Tensor, " n"]) -> None:
    if not bool(log_f.isfinite().all()):
        raise ValueError(
            f"Row {int((~log_f.isfinite()).nonzero()[0])} has a seen cell beyond the bounds of its "
            "column, where the density is zero: nothing can be drawn given it. Hide that cell, or "
            "widen the bound."
        )
