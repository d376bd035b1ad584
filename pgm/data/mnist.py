"""MNIST and Fashion-MNIST: read from $HOTPLATE_DATA or fetched once, and checked either way.

The four files of each set are gzipped idx files. Archives of the same images differ (gzip keeps a
date), so what is trusted is the sha256 of what is inside; a download is checked as a file too.
"""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8

from pgm.data.dataset import Dataset, dataset

FOLDER = "HOTPLATE_DATA"

# For each set: where it is published, and for each file the sha256 of the archive published there
# and of the idx file inside.
MIRRORS = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "fashion_mnist": (
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
}
SHA256 = {
    "mnist": {
        "train-images-idx3-ubyte.gz": (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        ),
        "train-labels-idx1-ubyte.gz": (
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        ),
        "t10k-images-idx3-ubyte.gz": (
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        ),
        "train-labels-idx1-ubyte.gz": (
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        ),
        "t10k-images-idx3-ubyte.gz": (
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    },
}


@dataset(
    licence="CC BY-SA 3.0, as commonly given",
    source="Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits (1998)",
)
def mnist() -> Dataset:
    """Handwritten digits: 70,000 images of 28 x 28 pixels (0 .. 255), with labels 0 .. 9.

    `x` is (70000, 784) in float32, whole numbers 0 .. 255 (220 MB); `labels` (70000,) in int64.
    Splits as published: train 0-59999, test 60000-69999.

    Read from `$HOTPLATE_DATA/mnist/*.gz` where these files exist, else fetched once into the
    user's cache folder.

    Raises:
        FileNotFoundError: the files are in neither place and cannot be fetched.
        ValueError: a file that is not the published one.
    """
    return _images("mnist")


@dataset(
    licence="MIT",
    source="H. Xiao, K. Rasul, R. Vollgraf, Fashion-MNIST, arXiv:1708.07747 (2017)",
)
def fashion_mnist() -> Dataset:
    """Clothes: 70,000 images of 28 x 28 pixels (0 .. 255), with labels 0 .. 9.

    Tensors, splits, places and errors as for `mnist`, the folder being
    `$HOTPLATE_DATA/fashion_mnist`.
    """
    return _images("fashion_mnist")


def read_idx(raw: bytes) -> UInt8[np.ndarray, "..."]:
    """Reads an idx file of unsigned bytes: two zeros, type 8, rank, sizes (big-endian), cells.

    Example:
        >>> read_idx(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 2, 7, 255]))
        array([[  7, 255]], dtype=uint8)
    """
    if raw[:3] != b"\x00\x00\x08":
        raise ValueError(f"Not an idx file of unsigned bytes: it begins with {raw[:4]!r}.")
    rank = raw[3]
    shape = np.frombuffer(raw, dtype=">u4", count=rank, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape)


def _images(name: str) -> Dataset:
    arrays = {file: read_idx(_read(name, file)) for file in SHA256[name]}
    train, train_labels, test, test_labels = (torch.from_numpy(a.copy()) for a in arrays.values())
    return Dataset(
        {
            "x": torch.cat([train, test]).flatten(1).to(torch.float32),
            "labels": torch.cat([train_labels, test_labels]).to(torch.int64),
        },
        splits={"train": slice(0, len(train)), "test": slice(len(train), None)},
        image_shape=(train.shape[1], train.shape[2]),
        levels=256,
    )


def _read(name: str, file: str) -> bytes:
    """The idx file inside an archive, wherever that is, once its sha256 is found right."""
    own = os.environ.get(FOLDER)
    path = Path(own, name, file) if own else None
    if path is None or not path.is_file():
        path = _fetch(name, file, looked_at=path)
    raw = gzip.decompress(path.read_bytes())
    if hashlib.sha256(raw).hexdigest() != SHA256[name][file][1]:
        raise ValueError(
            f"{path} is not the published {file} of {name}: the sha256 of what is inside differs. "
            "Numbers on other images could not be compared with anyone's. Delete the file and load "
            "again, or put the published one there."
        )
    return raw


def _fetch(name: str, file: str, *, looked_at: Path | None) -> Path:
    import pooch

    failures = []
    for mirror in MIRRORS[name]:
        try:
            path = pooch.retrieve(
                mirror + file,
                known_hash=f"sha256:{SHA256[name][file][0]}",
                fname=file,
                path=pooch.os_cache("hotplate") / name,
            )
            return Path(path)
        except (OSError, ValueError) as error:
            failures.append(f"{mirror}: {type(error).__name__}: {str(error)[:200]}")
    raise FileNotFoundError(
        f"{name} could not be loaded: {file} is in neither of the two places where it is looked "
        f"for.\n1. ${FOLDER}: "
        + (f"there is no {looked_at}" if looked_at else "the variable is not set")
        + f". Put the four files {', '.join(SHA256[name])} into a folder {name}/ and set {FOLDER} "
        "to the folder around it.\n2. The network, which needs to be reached once:\n"
        + "\n".join(failures)
    )
