"""Pictures show the numbers they are given: every check reads them back from the axes."""

import math

import matplotlib.pyplot as plt
import numpy as np
import pyro
import pytest
import torch
from matplotlib.colors import to_rgb
from pyro import distributions as dist

import pgm
from pgm import plots

X = torch.arange(6 * 12, dtype=torch.float32).reshape(6, 12)


class Gaussian(pgm.Model):
    """Independent normals: the density that the pictures must show."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.arange(float(features)))

    def model(self, n: int) -> None:
        with pgm.rows(n):
            pyro.sample("x", dist.Normal(self.mean, 1.0).to_event(1))


def picture(ax: plt.Axes) -> np.ndarray:
    return np.asarray(ax.images[0].get_array())


def test_a_grid_shows_every_picture_in_its_place() -> None:
    colours = picture(plots.images(X, shape=(3, 4), columns=4))
    assert colours.shape == (2 * 3 + 1, 4 * 4 + 3, 4)
    ink, paper = np.array(to_rgb(plots.INK)), picture(plots.images(X, shape=(3, 4)))[0, 0, :3]
    for i, row in enumerate(X):
        top, left = 4 * (i // 4), 5 * (i % 4)
        share = row.reshape(3, 4, 1).numpy() / 71
        shown = colours[top : top + 3, left : left + 4]
        np.testing.assert_allclose(shown[..., :3], paper + share * (ink - paper), atol=1e-5)
        assert (shown[..., 3] == 1).all()
    assert (colours[3, :, 3] == 0).all() and (colours[:, 4, 3] == 0).all()
    assert (colours[4:, 10:, 3] == 0).all()  # the two places that are left over


def test_values_outside_the_limits_are_clipped_and_hidden_cells_are_marked() -> None:
    x = torch.tensor([[-9.0, 0.0, 1.0, 9.0, torch.nan, 0.5]])
    colours = picture(plots.images(x, shape=(1, 6), limits=(0.0, 1.0)))[0, :, :3]
    np.testing.assert_array_equal(colours[0], colours[1])
    np.testing.assert_array_equal(colours[2], colours[3])
    np.testing.assert_allclose(colours[4], to_rgb(plots.HIDDEN), atol=1e-6)


def test_inpainting_has_seen_completions_and_truth_from_top_to_bottom() -> None:
    hidden, draws = X[:2].clone(), torch.stack([X[2:4], X[4:6]])
    hidden[:, 6:] = torch.nan
    ax = plots.inpainting(hidden, draws, X[:2], shape=(3, 4), limits=(0.0, 71.0))
    shown = picture(ax)
    plain = picture(plots.images(X[[0, 1, 2, 3, 4, 5, 0, 1]], shape=(3, 4), columns=2))
    np.testing.assert_allclose(shown[4:], plain[4:], atol=1e-6)
    np.testing.assert_allclose(shown[2, 0, :3], to_rgb(plots.HIDDEN), atol=1e-6)
    assert [text.get_text() for text in ax.texts] == ["seen", "completed", "truth"]


def test_outliers_are_sorted_by_their_score() -> None:
    score = torch.tensor([5.0, 1.0, 4.0, 0.0, 3.0, 2.0])
    ax = plots.outliers(X, score, shape=(3, 4), count=2)
    assert [text.get_text() for text in ax.texts] == ["0", "1", "5", "4"]
    expected = picture(plots.images(X[[3, 1, 0, 2]], shape=(3, 4), columns=2, limits=(0, 71)))
    shown = picture(ax)
    np.testing.assert_array_equal(shown[:3], expected[:3])
    np.testing.assert_array_equal(shown[-3:], expected[-3:])


def test_whole_numbers_are_drawn_as_they_are() -> None:
    whole = plots.images(X.long(), shape=(3, 4))
    np.testing.assert_array_equal(picture(whole), picture(plots.images(X, shape=(3, 4))))


def test_strip_is_one_row() -> None:
    assert picture(plots.strip(X, shape=(3, 4))).shape[:2] == (3, 6 * 5 - 1)


def test_heat_map_is_the_density_the_right_way_up() -> None:
    bounds = (-1.0, 2.0, -2.0, 3.0)
    ax = plots.density(Gaussian(2), bounds=bounds, points=31, x=torch.zeros(4, 2))
    drawn = ax.images[0]
    assert drawn.origin == "lower" and tuple(drawn.get_extent()) == bounds
    first, second = np.linspace(-1, 2, 31), np.linspace(-2, 3, 31)
    expected = np.exp(-(first[None] ** 2 + (second[:, None] - 1) ** 2) / 2) / (2 * math.pi)
    np.testing.assert_allclose(picture(ax), expected, rtol=1e-4)
    assert len(ax.lines[0].get_xdata()) == 4


def test_curve_is_the_density_and_marks_the_rows() -> None:
    ax = plots.curve(Gaussian(1), bounds=(-3.0, 3.0), x=torch.tensor([[1.0], [2.0]]))
    grid, value = ax.lines[0].get_data()
    np.testing.assert_allclose(
        np.asarray(value), np.exp(-(np.asarray(grid) ** 2) / 2) / math.sqrt(2 * math.pi), rtol=1e-4
    )
    assert list(ax.lines[1].get_xdata()) == [1.0, 2.0]


def test_the_given_axes_are_drawn_on_and_returned() -> None:
    _, axes = plt.subplots(1, 4)
    model = Gaussian(2)
    assert plots.images(X, shape=(3, 4), ax=axes[0]) is axes[0]
    assert plots.strip(X, shape=(3, 4), ax=axes[1]) is axes[1]
    assert plots.density(model, bounds=(0.0, 1.0, 0.0, 1.0), points=3, ax=axes[2]) is axes[2]
    assert plots.curve(Gaussian(1), bounds=(0.0, 1.0), points=3, ax=axes[3]) is axes[3]
    plt.close("all")


def test_refusals() -> None:
    with pytest.raises(ValueError, match="no pictures of 8 x 8"):
        plots.images(X, shape=(8, 8))
    with pytest.raises(ValueError, match="which part of the plane"):
        plots.density(Gaussian(2))
