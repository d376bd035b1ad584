"""`DPSVI`: stochastic variational inference in Pyro's spelling, private for each row.

    svi = pyro.infer.SVI(model, guide, optim, loss=Trace_ELBO())
    for x, y in loader:                     # minibatches in shuffled order
        svi.step(x, y)

    svi = privacy.DPSVI(model, guide, optim, rows="data", observed={"y": "obs"}, ...)
    for x, y in svi.lots(x, y):             # Poisson lots
        svi.step(x, y)

It is `privacy.PrivateTraining` of `pgm.from_pyro(model, guide)`, driven from outside. A step takes
the lot that was drawn for it and nothing else, since the accounting is about these lots.
"""

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from pyro.infer import ELBO, Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoGuide
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pgm.programs import from_pyro
from privacy.batches import HandedLots, PoissonLots
from privacy.fit import PrivateTraining
from privacy.report import PrivacyReport


class DPSVI:
    """Private variational inference for ordinary Pyro functions.

    Args:
        model: a Pyro function, its data passed to `obs=` (see `pgm.from_pyro`).
        guide: a function, an autoguide, an autoguide's class, or None.
        optim: a Pyro optimiser with one setting for all parameters, or a torch optimiser's class.
        loss: one of Pyro's ELBOs with one particle: the bound is that of `pgm.objective`.
        rows: the name of the plate over the rows.
        observed: which parameter is passed to the `obs=` of which site.
        modules: networks that the functions call.
        **options: epsilon, delta, steps, rate, rows declared as `size`, ledger, budget and the
            others of `privacy.PrivateTraining`.

    Example:
        >>> import pyro, pyro.distributions as dist
        >>> def model(x, y=None):
        ...     slope = pyro.param("slope", torch.tensor(0.0))
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("obs", dist.Normal(slope * x, 1.0), obs=y)
        >>> x = torch.linspace(-1.0, 1.0, 400)
        >>> svi = DPSVI(model, None, pyro.optim.SGD({"lr": 0.5}), rows="data",
        ...             observed={"y": "obs"}, epsilon=8.0, delta=1e-4, steps=20, seed=0)
        >>> for lot in svi.lots(x, 2 * x):
        ...     loss = svi.step(*lot)
        >>> svi.report.epsilon <= 8.0, loss
        (True, nan)
    """

    def __init__(
        self,
        model: Callable[..., Any],
        guide: Callable[..., Any] | type[AutoGuide] | None,
        optim: PyroOptim | type[torch.optim.Optimizer],
        loss: ELBO | None = None,
        *,
        rows: str,
        observed: Mapping[str, str] | None = None,
        modules: Iterable[nn.Module] = (),
        size: int | None = None,
        **options: Any,
    ) -> None:
        _check_loss(loss)
        self.model = from_pyro(model, guide, rows=rows, observed=observed, modules=modules)
        self.options = options | {"rows": size, **_optimiser(optim)}
        self._parameters = [name for name in inspect.signature(model).parameters if name != "n"]
        self._sites = dict(observed or {})
        self._training: PrivateTraining | None = None
        self._steps: Iterator[Any] = iter(())
        self._lots: HandedLots | None = None

    def lots(self, *args: Tensor, **kwargs: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Poisson lots of the rows, as many as there are steps: each is to be passed to `step`.

        Args:
            *args: all rows, as the model takes them.
            **kwargs: the same by name.

        Raises:
            ValueError: as `privacy.PrivateTraining`, nothing being trained or spent then; a lot
                that was left out; or a second loop without a budget.
        """
        self._refuse_more()
        bound = dict(zip(self._parameters, args, strict=False)) | kwargs
        data = {self._sites.get(name, name): value for name, value in bound.items()}
        training = PrivateTraining(self.model, data, **self.options)
        assert isinstance(training.source, PoissonLots)
        self._lots = HandedLots(training.source)
        training.source = self._lots
        self._training, self._steps = training, iter(training)
        keys = [self._sites.get(name, name) for name in bound]
        try:
            while training.step < training.total:
                lot = self._lots.draw()
                yield tuple(lot[key] for key in keys)
                self._lots.refuse_skipping()
            next(self._steps, None)  # the run ends: weights averaged if asked for, note written
        finally:
            self._steps.close()  # type: ignore[attr-defined]

    def step(self, *args: Tensor, **kwargs: Tensor) -> float:
        """One private step on the lot that was just drawn.

        Returns:
            NaN: the loss is computed from the rows, and kept behind `reveal()`.

        Raises:
            ValueError: the rows are not those of the lot: the accounting holds for Poisson lots
                alone.
        """
        given = [*args, *kwargs.values()]
        if self._lots is None or not self._lots.handed(given):
            raise ValueError(
                "step() got rows that are not the lot drawn for it. A DataLoader or lots of one's "
                "own are not Poisson samples, and would spend more than the accountant says: loop "
                "over svi.lots(...), and pass each lot to step() once."
            )
        next(self._steps)
        return math.nan

    def _refuse_more(self) -> None:
        known = self._training
        if known is not None and known.step + known.lost and self.options.get("budget") is None:
            raise ValueError(
                f"{known.step + known.lost} steps are made, and lots() gives those of all planned "
                "steps in one loop: a second one would spend more than epsilon. Plan more steps= "
                "beforehand, or pass budget=privacy.Budget(...), of which each loop takes what is "
                "left."
            )

    @property
    def guide(self) -> Callable[..., Any]:
        """The guide, as it is trained."""
        return self.model.guide

    def evaluate_loss(self, *args: Any, **kwargs: Any) -> float:
        """Refuses: SVI's loss of rows has no noise.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "A loss is computed from rows and has no noise: of training rows it would tell what no "
            "epsilon covers. Those of the lots are behind reveal(); of rows that need no privacy "
            "ask pgm.log_prob(svi.model, rows)."
        )

    @property
    def report(self) -> PrivacyReport:
        """The terms of the steps made so far."""
        return self._run.report

    def reveal(self) -> tuple[float, ...]:
        """The mean loss of every lot in nats a row, not covered by epsilon; the report says so."""
        return self._run.hidden.reveal()

    @property
    def _run(self) -> PrivateTraining:
        if self._training is None:
            raise ValueError("Nothing was trained yet: loop over svi.lots(...) first.")
        return self._training


def _check_loss(loss: ELBO | None) -> None:
    if loss is None:
        return
    known = isinstance(loss, Trace_ELBO | TraceEnum_ELBO | TraceMeanField_ELBO)
    if not known or loss.num_particles != 1:
        raise ValueError(
            f"loss is a {type(loss).__name__} with {loss.num_particles} particles; each row's loss "
            "is the evidence lower bound with one draw. Leave loss= out, or train the model of "
            "pgm.from_pyro with privacy.fit(..., objective=pgm.IWAE(k))."
        )


def _optimiser(optim: Any) -> dict[str, Any]:
    """The optimiser's class, and its settings, for `PrivateTraining`."""
    if not isinstance(optim, PyroOptim):
        return {"optimiser": optim}
    settings = optim.pt_optim_args
    if not isinstance(settings, dict):
        raise ValueError(
            "optim has settings by parameter; here one setting holds for all parameters, which "
            "share one clipping norm. Pass a dict, such as pyro.optim.Adam({'lr': 1e-3})."
        )
    rest = {name: value for name, value in settings.items() if name != "lr"}

    constructor: Any = optim.pt_optim_constructor
    make = functools.partial(constructor, **rest)
    rate = {"learning_rate": settings["lr"]} if "lr" in settings else {}
    return {"optimiser": make, **rate}
