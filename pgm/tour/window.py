"""Chapter: the Parzen window of six points (Murphy 2023, Fig. 20.5)."""

from collections.abc import Iterator

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

import pgm.data
from pgm import plots
from pgm.families.kde import KDE, Kernel
from pgm.report import Chapter, code, picture


def chapters(effort: float) -> Iterator[Chapter]:
    """Six points, two kernels, two bandwidths; there is nothing to train."""
    yield Chapter(
        "Parzen window",
        "The simplest density there is: a kernel on each of six points, uniform or Gaussian.",
        code(window),
        [
            picture(
                window(),
                "Density of six points (crosses) after Murphy (2023), Fig. 20.5. h is half the "
                "width of the uniform kernel, K(u) = 1/2 for |u| <= 1, and the standard deviation "
                "of the Gaussian one.",
            )
        ],
    )


def window() -> Figure:
    """Uniform kernels above, Gaussian ones below, h = 1 and 2."""
    x = pgm.data.load("parzen").x
    figure, axes = plt.subplots(2, 2, figsize=(6.4, 3.2), sharex=True, layout="constrained")
    kernels: tuple[Kernel, ...] = ("uniform", "gaussian")
    for row, kernel in zip(axes, kernels, strict=True):
        for ax, h in zip(row, [1.0, 2.0], strict=True):
            model = KDE(x, bandwidth=h, kernel=kernel)
            plots.curve(model, bounds=(-7.0, 11.0), x=x, points=2000, ax=ax)
            ax.set_title(f"{kernel}, h = {h:.0f}", fontsize=9)
    return figure
