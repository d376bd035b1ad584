"""What is drawn is what was computed: means, Student's intervals, every repeat."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest

from privacy import plots


def test_every_repeat_the_mean_and_its_interval_are_drawn() -> None:
    """Three scores 1, 2, 3: mean 2, standard error 1 / sqrt 3, t = 4.3027."""
    ax = plots.utility({2.0: [4.0], 0.5: [1.0, 2.0, 3.0]}, references={"open": 5.0}, label="AUROC")
    points = [line.get_xydata() for line in ax.lines if line.get_linestyle() == "None"]
    assert sorted(map(tuple, np.concatenate(points))) == [(0.5, 1), (0.5, 2), (0.5, 3), (2, 4)]
    (mean,) = [line for line in ax.lines if line.get_label() == "mean of 1 to 3 repeats"]
    assert mean.get_xydata().tolist() == [[0.5, 2.0], [2.0, 4.0]]
    band = ax.collections[0].get_paths()[0].vertices
    low, high = (f(band[np.isclose(band[:, 0], 0.5), 1]) for f in (np.min, np.max))
    assert (low, high) == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
    assert ax.get_ylabel() == "AUROC" and ax.get_xscale() == "log"
    plt.close("all")


def test_an_axes_is_drawn_on_and_handed_back() -> None:
    ax = plt.subplots()[1]
    assert plots.utility({1.0: [0.5]}, ax=ax) is ax
    plt.close("all")


@pytest.mark.parametrize(
    ("scores", "message"),
    [({}, "nothing to draw"), ({1.0: []}, "nothing to draw"), ({0.0: [1.0]}, "is positive"),
     ({float("inf"): [1.0]}, "a reference"), ({1.0: [float("nan")]}, "not all finite")],
)  # fmt: skip
def test_bad_input_is_explained(scores: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plots.utility(scores)
