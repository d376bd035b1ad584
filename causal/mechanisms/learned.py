"""Any regressor or classifier of scikit-learn as the function in a mechanism.

x = f(pa) + e, with f a regressor and e the law of its residuals; P(x = j | pa) = predict_proba of a
classifier. The estimator is fitted by `causal.estimate`; no gradient reaches it, and no file of
ours can hold it: a file keeps what it predicts at a few made-up points, so that a model that is
read back with another estimator is refused.
"""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Shaped
from pyro.distributions import Categorical, Normal
from torch import Tensor

from causal.mechanisms.kind import NUMBER, Kind
from causal.mechanisms.mechanism import Inputs, Mechanism, Values, check_codes, refuse_kind
from causal.mechanisms.predictor import columns
from causal.mechanisms.roots import Kernels, silverman

_ATOMS = 256
_TINY = 1e-6

Residuals = Literal["normal", "kernel"]


class Learned(Mechanism):
    """A mechanism around an estimator of scikit-learn; the base of the two.

    Args:
        inputs: the kind of each parent.
        estimator: it is cloned, and the clone fitted; a `random_state` of None becomes 0, so that
            the same rows make the same mechanism.
    """

    said: Float[Tensor, "points *k"]

    def __init__(self, inputs: Inputs | None, estimator: Any) -> None:
        super().__init__()
        from sklearn.base import clone

        self.inputs = dict(inputs or {})
        if not self.inputs:
            raise ValueError(
                f"{type(self).__name__} is a function of parents, and this node has none. Use a "
                "root: LinearGaussian, EmpiricalRoot, KernelRoot, MixtureRoot or CategoricalTable."
            )
        self.estimator = clone(estimator)
        open_ = {k: 0 for k, v in self.estimator.get_params().items() if _is_seed(k) and v is None}
        self.estimator.set_params(**open_)
        self.register_buffer("said", torch.zeros(0))

    @property
    def ready(self) -> bool:
        """Whether it is fitted."""
        return len(self.said) > 0

    def predicted(self, parents: Values) -> Float[Tensor, "*n k"]:
        """What the estimator says of every row.

        Raises:
            ValueError: it is not fitted.
        """
        if not self.ready:
            raise ValueError(
                f"The {type(self.estimator).__name__} is not fitted: no gradient trains it. Call "
                "causal.estimate(scm, data) first; pgm.fit then trains the other nodes."
            )
        X = columns(self.inputs, parents, torch.float64)
        y = self._predict(X.detach().reshape(-1, X.shape[-1]).cpu().numpy())
        return torch.as_tensor(y).to(self.said).reshape(*X.shape[:-1], -1)

    def fit(self, x: Tensor, parents: Values, weight: Tensor) -> None:
        """Fits a fresh clone under the weights of the rows.

        An estimator that takes no `sample_weight` is fitted to rows drawn in proportion to their
        weights, where these differ.
        """
        from sklearn.base import clone
        from sklearn.utils.validation import has_fit_parameter

        X = columns(self.inputs, parents, torch.float64).cpu().numpy()
        y, w = x.cpu().numpy(), weight.double().cpu().numpy()
        self.estimator = clone(self.estimator)
        if has_fit_parameter(self.estimator, "sample_weight"):
            self.estimator.fit(X, y, sample_weight=w)
        elif bool((weight == weight[0]).all()):
            self.estimator.fit(X, y)
        else:
            i = torch.multinomial(weight.double(), len(x), replacement=True).cpu().numpy()
            self.estimator.fit(X[i], y[i])
        self.said = torch.as_tensor(self._predict(_points(X.shape[1]))).to(self.said)

    def extra_repr(self) -> str:
        """The estimator."""
        return f"{self.estimator!r} of {', '.join(self.inputs)}"

    def _predict(self, X: Any) -> Any:
        raise NotImplementedError

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """Refuses what was saved with an estimator that predicts otherwise."""
        said = state.get(prefix + "said", self.said)
        if len(said) and not self._agrees(said):
            rest[-1].append(
                f"The {type(self.estimator).__name__} of {prefix}estimator is not in the file, "
                "which holds numbers alone, and the one here predicts otherwise than the saved "
                "one: fit it to the same rows (with the same random_state), or put the saved "
                "estimator there (joblib.dump and load), before load(path, into=scm)."
            )
        for name, buffer in self.named_buffers(recurse=False):
            if prefix + name in state:
                setattr(self, name, buffer.new_empty(state[prefix + name].shape))
        super()._load_from_state_dict(state, prefix, *rest)

    def _agrees(self, said: Tensor) -> bool:
        from sklearn.exceptions import NotFittedError

        width = sum(kind.width for kind in self.inputs.values())
        try:
            here = torch.as_tensor(self._predict(_points(width)))
        except (NotFittedError, AttributeError):
            return False
        return here.shape == said.shape and torch.allclose(here.to(said), said, rtol=1e-3)


class Regressor(Learned):
    """x = f(pa) + e, f a regressor of scikit-learn.

    The residuals are normal, or the kernel density of at most 256 of their quantiles. They are
    those of the fitted rows: a regressor that fits them too closely makes them too small.

    Args:
        inputs: the kind of each parent.
        estimator: the regressor.
        residuals: "normal" or "kernel".

    Raises:
        ValueError: no parents, or another law of residuals.

    Example:
        >>> from sklearn.linear_model import Ridge
        >>> y = Regressor({"a": Kind()}, estimator=Ridge(alpha=1e-6))
        >>> a = torch.linspace(0.0, 1.0, 50)
        >>> y.estimate(2 * a + 0.1 * (-1.0) ** torch.arange(50), {"a": a}, torch.ones(50))
        >>> y.dist({"a": torch.tensor([1.0])})
        Normal(loc: tensor([2.0]), scale: tensor([0.1]))
    """

    scale: Float[Tensor, ""]
    atoms: Float[Tensor, " m"]

    def __init__(
        self,
        inputs: Inputs | None = None,
        *,
        estimator: Any,
        residuals: Residuals = "normal",
    ) -> None:
        super().__init__(inputs, estimator)
        if residuals not in ("normal", "kernel"):
            raise ValueError(f"residuals is {residuals!r}; there are 'normal' and 'kernel'.")
        self.residuals = residuals
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("atoms", torch.zeros(0))

    @classmethod
    def start(cls, inputs: Inputs, kind: Kind, **options: Any) -> "Regressor":
        """Not fitted; `estimator=` is required."""
        if not kind.is_number:
            refuse_kind(cls, kind, "a number", "Classifier")
        return cls(inputs, **options)

    @classmethod
    def example(cls) -> "Regressor":
        """A tree of a number and levels, fitted to made-up rows."""
        from sklearn.tree import DecisionTreeRegressor

        inputs = {"a": NUMBER, "t": Kind(levels=3)}
        made = cls(
            inputs, estimator=DecisionTreeRegressor(max_depth=3, random_state=0), residuals="kernel"
        )
        x, parents = made_up_rows()
        made.estimate(x, parents, torch.ones(len(x)))
        return made

    def dist(self, parents: Values) -> Any:
        """N(f, sigma^2), or kernels around f plus each residual."""
        f = self.predicted(parents)[..., 0]
        if self.residuals == "normal":
            return Normal(f, self.scale)
        loc = f[..., None] + self.atoms
        weights = torch.ones_like(loc)
        return Kernels(Categorical(weights / len(self.atoms)), Normal(loc, self.scale))

    def estimate(
        self, x: Float[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """Fits the regressor, then the law of its residuals."""
        self.fit(x, parents, weight)
        w = weight / weight.sum()
        e = (x - self.predicted(parents)[..., 0]).to(self.scale)
        variance = (w * e.square()).sum()
        if float(variance) <= 1e-12 * float(x.var()):
            raise ValueError(
                f"The {type(self.estimator).__name__} fits every row without a residual, so that "
                "the noise has no variance. Take one that generalises (smaller trees, more "
                "neighbours, more regularisation)."
            )
        self.scale = variance.sqrt()
        if self.residuals == "kernel":
            q = (torch.arange(min(len(e), _ATOMS), device=e.device) + 0.5) / min(len(e), _ATOMS)
            value, order = e.sort()
            place = torch.searchsorted(w[order].cumsum(0), q.to(w)).clamp(max=len(e) - 1)
            self.atoms = value[place]
            n = float(weight.sum().square() / weight.square().sum())
            self.scale = silverman(self.atoms, torch.full_like(self.atoms, 1 / len(q)), n)

    def push(self, parents: Values, u: Any, *, coupling: str | None = None) -> Tensor:
        """F + sigma u; for kernels by their noise form."""
        if self.residuals == "kernel":
            return super().push(parents, u, coupling=coupling)
        x: Tensor = self.predicted(parents)[..., 0] + self.scale * u
        return x

    def pull(self, parents: Values, x: Tensor, *, coupling: str | None = None) -> Any:
        """(x - f) / sigma; for kernels by their noise form."""
        if self.residuals == "kernel":
            return super().pull(parents, x, coupling=coupling)
        return (x - self.predicted(parents)[..., 0]) / self.scale

    def _predict(self, X: Any) -> Any:
        return np.asarray(self.estimator.predict(X), dtype=np.float64).reshape(len(X), 1)


class Classifier(Learned):
    """P(x = j | pa) = predict_proba, of a classifier of scikit-learn.

    No level has a probability below a millionth, as one that a forest has not seen is not
    impossible.

    Args:
        inputs: the kind of each parent.
        levels: k.
        estimator: the classifier.

    Raises:
        ValueError: no parents, or a classifier without `predict_proba`.

    Example:
        >>> from sklearn.naive_bayes import GaussianNB
        >>> y = Classifier({"a": Kind()}, levels=2, estimator=GaussianNB())
        >>> a = torch.tensor([-1.0, -2.0, 1.0, 2.0])
        >>> y.estimate((a > 0).long(), {"a": a}, torch.ones(4))
        >>> y.dist({"a": torch.zeros(1)}).probs
        tensor([[0.5000, 0.5000]])
    """

    def __init__(self, inputs: Inputs | None = None, *, levels: int, estimator: Any) -> None:
        super().__init__(inputs, estimator)
        self.kind = Kind(levels=levels)
        if not callable(getattr(estimator, "predict_proba", None)):
            raise ValueError(
                f"{type(estimator).__name__} has no predict_proba, and a mechanism is made of "
                "probabilities. Take another, or calibrate it (CalibratedClassifierCV)."
            )

    @classmethod
    def start(cls, inputs: Inputs, kind: Kind, **options: Any) -> "Classifier":
        """Not fitted; `estimator=` is required."""
        if kind.levels == 1:
            refuse_kind(cls, kind, "a node with levels", "Regressor")
        return cls(inputs, levels=kind.levels, **options)

    @classmethod
    def example(cls) -> "Classifier":
        """A tree of a number and levels, fitted to made-up rows."""
        from sklearn.tree import DecisionTreeClassifier

        inputs = {"a": NUMBER, "t": Kind(levels=3)}
        made = cls(inputs, levels=2, estimator=DecisionTreeClassifier(max_depth=3, random_state=0))
        x, parents = made_up_rows()
        made.estimate((x > 1).long(), parents, torch.ones(len(x)))
        return made

    def dist(self, parents: Values) -> Any:
        """Categorical(predict_proba)."""
        return Categorical(self.predicted(parents))

    def estimate(
        self, x: Shaped[Tensor, " n"], parents: Values, weight: Float[Tensor, " n"]
    ) -> None:
        """Fits the classifier."""
        check_codes("The node", x, self.levels)
        self.fit(x.long(), parents, weight)

    def _predict(self, X: Any) -> Any:
        probs = np.full((len(X), self.levels), _TINY)
        columns_seen = np.asarray(self.estimator.classes_, dtype=int)
        probs[:, columns_seen] = np.maximum(self.estimator.predict_proba(X), _TINY)
        return probs / probs.sum(1, keepdims=True)


def _is_seed(parameter: str) -> bool:
    return parameter.rpartition("__")[2] == "random_state"


def _points(width: int) -> Any:
    """Made-up rows, the same each time, at which two estimators are compared."""
    return np.random.default_rng(0).normal(size=(16, width))


def made_up_rows(n: int = 80) -> tuple[Float[Tensor, " n"], dict[str, Tensor]]:
    """Rows of a node and its parents, a number and three levels, for examples."""
    g = torch.Generator().manual_seed(0)
    a, t = torch.randn(n, generator=g), torch.randint(3, (n,), generator=g)
    return a.sin() + t + 0.3 * torch.randn(n, generator=g), {"a": a, "t": t}
