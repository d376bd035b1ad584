"""Pictures: what is drawn is what was asked, on the axes that were given."""

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex

import causal
from causal import SCM, effect


@pytest.fixture
def ax() -> Axes:
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


def test_severed_arrows_are_dashed_and_every_node_has_a_place(ax: Axes) -> None:
    assert causal.draw_graph("A -> B -> C; A -> C", do=["B", "C"], ax=ax) is ax
    assert sorted(arrow.get_linestyle() for arrow in ax.patches) == ["dashed"] * 3
    assert {text.get_text() for text in ax.texts} == set("ABC")
    plain = causal.draw_graph("A -> B -> C; A -> C", ax=plt.subplots()[1])
    assert {arrow.get_linestyle() for arrow in plain.patches} == {"solid"}
    places = {tuple(round(v, 6) for v in text.get_position()) for text in plain.texts}
    assert len(places) == 3


def test_the_graph_looks_the_same_before_and_after() -> None:
    graph = "A -> {B C}; B -> {C D}; C -> {D E}; D -> E"
    before, after = (causal.draw_graph(graph, do=do) for do in ([], ["C"]))
    assert {t.get_text(): t.get_position() for t in before.texts} == {
        t.get_text(): t.get_position() for t in after.texts
    }


def test_what_is_not_observed_is_grey_and_dashed(ax: Axes) -> None:
    graph = "L [latent]; L -> {X Z}; X -> Y; X <-> Y; Y <-> Z"
    causal.draw_graph(graph, do=["X"], ax=ax)
    assert {text.get_text() for text in ax.texts} == set("LXYZ")
    styles = [(arrow.get_linestyle(), to_hex(arrow.get_edgecolor())) for arrow in ax.patches]
    plain, severed = ("solid", "#000000"), ("dashed", to_hex("tab:red"))
    # L -> Z and X -> Y; L -> X and X <-> Y are cut by do(X); Y <-> Z
    assert styles[:2] == [plain, plain]
    assert styles[2:] == [severed, severed, ("dashed", to_hex("tab:gray"))]
    heads = [arrow.get_arrowstyle().arrow for arrow in ax.patches]
    assert heads == ["-|>"] * 3 + ["<|-|>"] * 2
    (latent,) = [c for c in ax.collections if c.get_linestyle()[0][1] is not None]
    assert to_hex(latent.get_edgecolor()[0]) == to_hex("tab:gray")


def test_a_node_that_is_not_there(ax: Axes) -> None:
    with pytest.raises(ValueError, match="'Q' is not in the graph"):
        causal.draw_graph("A -> B", do=["Q"], ax=ax)


def test_levels_are_bars_of_their_probabilities(
    stones_scm: SCM, stones: dict[str, torch.Tensor], ax: Axes
) -> None:
    causal.estimate(stones_scm, stones)
    found = effect(stones_scm, "success", do={"treatment": "open"}, draws=10)
    causal.draw_outcome(found, ax=ax)
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == pytest.approx([*found.control.tolist(), *found.treated.tolist()])
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["no intervention", "do(treatment=open)"]


def test_numbers_are_histograms_and_the_effect_has_its_interval(linear: SCM, ax: Axes) -> None:
    rows = causal.do(linear, A=1.0)
    found = effect(linear, "E", do={"B": 5.0}, versus={"B": 0.0}, draws=2000, seed=0)
    causal.draw_outcome(found, ax=ax)
    assert len(ax.patches) == 120
    other = found.plot(ax=plt.subplots()[1])
    assert other.lines[0].get_xdata() == pytest.approx([float(found.difference)])
    assert rows.base is linear
