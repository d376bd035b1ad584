"""Data sets: each is what its source says it is, is found by name, and explains what is wrong."""

import gzip
import hashlib
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import networkx as nx
import numpy as np
import pooch
import pytest
import torch
from sklearn.datasets import load_digits

import pgm.data
from pgm.data import mnist
from pgm.schema import Categorical, Schema

TOYS = ["checkerboard", "eight_gaussians", "pinwheel", "rings", "two_moons"]
published = pytest.mark.skipif(
    "HOTPLATE_DATA" not in os.environ,
    reason="HOTPLATE_DATA is not set: it names the folder with the published files",
)


def published_file(name: str) -> Path:
    return Path(os.environ["HOTPLATE_DATA"], name)


def test_sets_are_found_and_described_without_being_loaded() -> None:
    fetched = ["fashion_mnist", "mnist"]
    assert pgm.data.names() == sorted(
        [*TOYS, *fetched, "digits", "eight_schools", "nsw", "parzen", "sachs"]
    )
    lines = pgm.data.describe().splitlines()
    assert [line.split()[0] for line in lines] == pgm.data.names()
    assert all(len(line.split()) > 3 for line in lines)
    assert 'load("rings", n=1000, noise=0.08, seed=0)' in pgm.data.describe("rings")
    assert "CC0" in pgm.data.describe("sachs")


def test_importing_the_sets_loads_no_heavy_library() -> None:
    code = "import sys, pgm.data; pgm.data.names(); print({} & sys.modules.keys())"
    heavy = {"pandas", "sklearn", "pooch", "requests"}
    command = [sys.executable, "-c", code.format(heavy)]
    out = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
    assert out.strip() == "set()"


def test_wrong_names_and_options_are_explained() -> None:
    with pytest.raises(ValueError, match=r'No set is called "Digit"\. Did you mean "digits"'):
        pgm.data.load("Digit")
    with pytest.raises(TypeError, match=r'"two_moons" takes the options .*seed.*rows'):
        pgm.data.load("two_moons", rows=3)
    digits = pgm.data.load("digits")
    with pytest.raises(AttributeError, match='holds no "y"; it holds x, labels'):
        _ = digits.y
    with pytest.raises(ValueError, match='no split "tset"; it has train, validation, test'):
        digits.split("tset")
    with pytest.raises(ValueError, match="no table of named columns"):
        _ = digits.frame
    with pytest.raises(ValueError, match='has no graph "truth"; it has published, consensus'):
        pgm.data.load("sachs").graph("truth")


def test_a_set_prints_its_card_and_survives_pickling() -> None:
    data = pgm.data.load("digits")
    for printed in (repr(data), repr(pickle.loads(pickle.dumps(data)))):
        assert printed.startswith("digits: Handwritten digits: 8 x 8 pixels")
        assert "1797 rows" in printed
        assert "x (1797, 64) torch.float32, labels (1797,) torch.int64" in printed
        assert "CC BY 4.0" in printed


def test_digits_are_scikit_learns_in_three_splits() -> None:
    data = pgm.data.load("digits")
    bunch = load_digits()
    assert np.array_equal(data.x.numpy(), bunch.data)
    assert np.array_equal(data.labels.numpy(), bunch.target)
    assert data.levels is not None
    assert (data.x.min(), data.x.max()) == (0, data.levels - 1)
    assert torch.equal(data.train.x, data.x[:1000])
    assert torch.equal(data.validation.labels, data.labels[1000:1350])
    assert torch.equal(data.test.x, data.x[1350:])
    assert data.image_shape == data.test.image_shape == (8, 8)


def test_sachs_clamps_what_the_experiments_clamped() -> None:
    data = pgm.data.load("sachs")
    columns = list(data.frame.columns)
    assert " ".join(columns) == "Raf Mek Plcg PIP2 PIP3 Erk Akt PKA PKC P38 Jnk"
    assert data.x.shape == data.clamped.shape == (5400, 11)
    rows = dict(zip(columns, data.clamped.sum(0).tolist(), strict=True))
    assert {name: n for name, n in rows.items() if n} == {
        "Mek": 600, "PIP2": 600, "Akt": 600, "PKA": 600, "PKC": 1200
    }  # fmt: skip
    assert data.clamped.sum(-1).max() == 1
    for inhibited in ("Mek", "PIP2", "Akt"):
        site = columns.index(inhibited)
        assert set(data.x[data.clamped[:, site], site].tolist()) == {0}


def test_sachs_frame_and_codes_agree_through_a_schema() -> None:
    data = pgm.data.load("sachs")
    schema = Schema.infer(data.frame)
    assert set(schema.columns.values()) == {Categorical(("low", "medium", "high"), ordered=True)}
    batch = schema.encode(data.frame)
    assert torch.equal(torch.stack(list(batch.values()), -1), data.x)
    assert schema.decode(batch).equals(data.frame)
    assert schema.code("PKA", "high") == 2


def test_a_frame_and_a_graph_are_the_users_own() -> None:
    data = pgm.data.load("sachs")
    frame = data.frame
    frame["PKA"] = "high"
    data.graph().remove_node("PKA")
    assert data.frame["PKA"].nunique() == 3
    assert data.graph().in_degree("PKA") == 1


@pytest.mark.parametrize(("name", "edges"), [("published", 17), ("consensus", 20)])
def test_sachs_graphs_are_acyclic_over_all_columns(name: str, edges: int) -> None:
    data = pgm.data.load("sachs")
    graph = data.graph(name)
    assert list(graph) == list(data.frame.columns)
    assert graph.number_of_edges() == edges
    assert nx.is_directed_acyclic_graph(graph)


@published
def test_sachs_is_the_published_table() -> None:
    data = pgm.data.load("sachs")
    raw = np.loadtxt(published_file("sachs/sachs.interventional.txt"), skiprows=1, dtype=int)
    assert np.array_equal(data.x.numpy() + 1, raw[:, :11])
    assert np.array_equal((data.clamped * torch.arange(1, 12)).sum(-1).numpy(), raw[:, 11])


@published
def test_sachs_graphs_are_the_published_ones() -> None:
    data = pgm.data.load("sachs")
    bif = published_file("networks/sachs.bif").read_text()
    families = re.findall(r"probability \( (\w+) \| ([\w, ]+) \)", bif)
    arcs = {(parent, child) for child, parents in families for parent in parents.split(", ")}
    assert set(data.graph("published").edges) == arcs
    text = published_file("sachs/sachs_ground_truth_graph.txt").read_text()
    known = {column.lower(): column for column in data.frame} | {"plc": "Plcg"}
    arcs = {(known[a], known[b]) for a, b in re.findall(r"(\w+) --> (\w+)", text)}
    assert set(data.graph("consensus").edges) == arcs


def test_parzen_and_eight_schools() -> None:
    assert pgm.data.load("parzen").x.shape == (6, 1)
    schools = pgm.data.load("eight_schools")
    weight = schools.sigma**-2
    # The pooled effect and its standard error: Gelman et al., BDA3 (2013), section 5.5.
    assert (schools.y * weight).sum() / weight.sum() == pytest.approx(7.7, abs=0.05)
    assert weight.sum() ** -0.5 == pytest.approx(4.1, abs=0.05)


@pytest.mark.parametrize("name", TOYS)
def test_toys_follow_their_seed_and_leave_the_global_state(name: str) -> None:
    before = torch.get_rng_state()
    one, same, other = (pgm.data.load(name, n=50, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.x, same.x)
    assert not torch.equal(one.x, other.x)
    assert one.x.shape == (50, 2)
    free = [pgm.data.load(name, n=50, seed=None).x for _ in range(2)]
    assert not torch.equal(*free)
    torch.set_rng_state(before)
    assert torch.equal(pgm.data.load(name, n=50, seed=None).x, free[0])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rings", {"n": 0}, "n=0"),
        ("two_moons", {"noise": -0.1}, "noise=-0.1"),
        ("pinwheel", {"noise": math.nan}, "noise=nan"),
        ("pinwheel", {"arms": 0}, "arms=0"),
    ],
)
def test_impossible_toys_are_refused(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pgm.data.load(name, **options)


@pytest.mark.parametrize(("name", "parts"), [*zip(TOYS, [8, 8, 5, 4, 2], strict=True)])
def test_the_parts_of_a_toy_have_equal_mass(name: str, parts: int) -> None:
    labels = pgm.data.load(name, n=4000).labels
    share = labels.bincount() / len(labels)
    p = 1 / parts
    assert (share - p).abs().max() < 4 * math.sqrt(p * (1 - p) / 4000)


def test_two_moons_are_half_circles() -> None:
    data = pgm.data.load("two_moons", noise=0.0)
    upper, lower = (data.x[data.labels == moon] for moon in (0, 1))
    torch.testing.assert_close(upper.norm(dim=-1), torch.ones(len(upper)))
    assert upper[:, 1].min() >= -1e-6
    lower = lower - torch.tensor([1.0, 0.5])
    torch.testing.assert_close(lower.norm(dim=-1), torch.ones(len(lower)))
    assert lower[:, 1].max() <= 1e-6


def test_rings_have_their_radii_and_their_noise() -> None:
    data = pgm.data.load("rings", noise=0.0)
    torch.testing.assert_close(data.x.norm(dim=-1), 0.75 * (1 + data.labels))
    blur = pgm.data.load("rings", n=4000).x - pgm.data.load("rings", n=4000, noise=0.0).x
    assert blur.std().item() == pytest.approx(0.08, rel=0.05)


def test_eight_gaussians_have_their_moments() -> None:
    data = pgm.data.load("eight_gaussians", n=8000)
    for label in range(8):
        x = data.x[data.labels == label]
        centre = math.sqrt(8) * torch.tensor(
            [math.cos(math.pi / 4 * label), math.sin(math.pi / 4 * label)]
        )
        torch.testing.assert_close(x.mean(0), centre, atol=4 * 0.35 / math.sqrt(900), rtol=0)
        torch.testing.assert_close(x.T.cov(), 0.35**2 * torch.eye(2), atol=0.025, rtol=0)


def test_the_checkerboard_fills_squares_of_one_colour_evenly() -> None:
    data = pgm.data.load("checkerboard", n=8000)
    square = ((data.x + 4) / 2).floor()
    assert set(square.sum(-1).remainder(2).tolist()) == {0}
    assert square.min() == 0
    assert square.max() == 3
    assert len(square.unique(dim=0)) == 8
    within = (data.x + 4) / 2 - square
    torch.testing.assert_close(within.mean(0), torch.full((2,), 0.5), atol=0.015, rtol=0)
    torch.testing.assert_close(within.var(0), torch.full((2,), 1 / 12), atol=0.004, rtol=0)


def test_unturning_a_pinwheel_gives_straight_arms() -> None:
    data = pgm.data.load("pinwheel", noise=0.0, arms=3)
    along = data.x.norm(dim=-1) / 2
    angle = torch.atan2(data.x[:, 1], data.x[:, 0]) - 0.25 * along.exp()
    turned = angle - 2 * math.pi / 3 * data.labels
    # One point in two thousand lies beyond the hub, where the radius hides the sign.
    assert (turned.cos() > 1 - 1e-5).float().mean() > 0.997
    assert along.mean().item() == pytest.approx(1, abs=0.04)
    assert along.std().item() == pytest.approx(0.3, rel=0.1)


@published
@pytest.mark.parametrize(
    ("name", "mean", "std", "labels"),
    [
        ("mnist", 0.1307, 0.3081, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        ("fashion_mnist", 0.2860, 0.3530, [1000] * 10),
    ],
)
def test_images_are_the_published_ones(
    name: str, mean: float, std: float, labels: list[int]
) -> None:
    """Mean and standard deviation of the training pixels are those everyone normalises by."""
    data = pgm.data.load(name)
    assert data.x.shape == (70000, 784)
    assert (data.image_shape, data.levels) == ((28, 28), 256)
    train = data.train.x / 255
    assert train.shape == (60000, 784)
    assert train.mean().item() == pytest.approx(mean, abs=1e-4)
    assert train.std().item() == pytest.approx(std, abs=1e-4)
    assert data.test.labels.bincount().tolist() == labels


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an mnist of 3 + 2 images of 2 x 4 pixels, and its hashes as published."""
    sizes = {"train": 3, "t10k": 2}
    hashes = {}
    (tmp_path / "mnist").mkdir()
    for file in mnist.SHA256["mnist"]:
        n = sizes[file.split("-")[0]]
        raw = idx(np.arange(n * 8).reshape(n, 2, 4) if "images" in file else np.arange(n))
        archive = gzip.compress(raw)
        (tmp_path / "mnist" / file).write_bytes(archive)
        hashes[file] = (hashlib.sha256(archive).hexdigest(), hashlib.sha256(raw).hexdigest())
    monkeypatch.setitem(mnist.SHA256, "mnist", hashes)
    return tmp_path


def check_tiny(data: pgm.data.Dataset) -> None:
    assert data.train.x.tolist() == torch.arange(24.0).reshape(3, 8).tolist()
    assert data.test.labels.tolist() == [0, 1]
    assert data.image_shape == (2, 4)


def test_images_are_read_from_the_named_folder(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOTPLATE_DATA", str(tiny))
    check_tiny(pgm.data.load("mnist"))


def test_images_are_fetched_where_no_folder_is_named(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        if "ossci" in url:
            raise OSError("the first mirror is down")
        assert url.startswith("https://") and url.endswith("/" + fname)
        assert known_hash == "sha256:" + mnist.SHA256["mnist"][fname][0]
        return str(tiny / "mnist" / fname)

    monkeypatch.delenv("HOTPLATE_DATA", raising=False)
    monkeypatch.setattr(pooch, "retrieve", retrieve)
    check_tiny(pgm.data.load("mnist"))


def test_other_images_under_the_same_name_are_refused(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOTPLATE_DATA", str(tiny))
    file = tiny / "mnist" / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.compress(idx(np.zeros((3, 2, 4)))))
    with pytest.raises(ValueError, match="is not the published train-images"):
        pgm.data.load("mnist")


@pytest.mark.parametrize("folder", [None, "empty"])
def test_where_nothing_works_both_ways_are_told(
    folder: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def retrieve(*_: object, **__: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.delenv("HOTPLATE_DATA", raising=False)
    if folder is not None:
        monkeypatch.setenv("HOTPLATE_DATA", str(tmp_path / folder))
    looked = "variable is not set" if folder is None else "there is no .*empty"
    message = rf"(?s){looked}.*folder fashion_mnist/ .*zalandoresearch.*no route to host"
    with pytest.raises(FileNotFoundError, match=message):
        pgm.data.load("fashion_mnist")


def test_an_idx_file_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="Not an idx file"):
        mnist.read_idx(b"\x00\x00\x0d\x01\x00\x00\x00\x00")


def test_nsw_is_the_table_of_dehejia_and_wahba() -> None:
    """Their table 1: 185 treated, 260 controls, 15,992 of the CPS; means of age and earnings."""
    data = pgm.data.load("nsw")
    trial, study = data.split("experiment").frame, data.split("observed").frame
    treated, controls, survey = trial[trial.treat == 1], trial[trial.treat == 0], study[185:]
    assert (len(treated), len(controls), len(survey)) == (185, 260, 15992)
    assert [round(t.age.mean(), 2) for t in (treated, controls, survey)] == [25.82, 25.05, 33.23]
    assert [round(t.re74.mean()) for t in (treated, controls, survey)] == [2096, 2107, 14017]
    assert study[:185].equals(treated)
