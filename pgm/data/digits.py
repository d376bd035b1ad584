"""The 8x8 digits that come with scikit-learn."""

import torch

from pgm.data.dataset import Dataset, dataset


@dataset(
    licence="CC BY 4.0 (UCI Machine Learning Repository)",
    source="E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998), "
    "as shipped with scikit-learn",
)
def digits() -> Dataset:
    """Handwritten digits: 8 x 8 pixels of 17 grey levels (0 .. 16), with labels 0 .. 9.

    `x` is (1797, 64) in float32, whole numbers 0 .. 16; `labels` (1797,) in int64. Splits by row:
    train 0-999, validation 1000-1349, test 1350-1796.

    Example:
        >>> import pgm.data
        >>> data = pgm.data.load("digits")
        >>> data.train.x.shape, data.validation.n, data.test.n
        (torch.Size([1000, 64]), 350, 447)
    """
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Dataset(
        {
            "x": torch.from_numpy(bunch.data).to(torch.float32),
            "labels": torch.from_numpy(bunch.target).to(torch.int64),
        },
        splits={
            "train": slice(0, 1000),
            "validation": slice(1000, 1350),
            "test": slice(1350, 1797),
        },
        image_shape=(8, 8),
        levels=17,
    )
