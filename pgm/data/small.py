"""Sets small enough to be written down."""

import torch

from pgm.data.dataset import Dataset, dataset


@dataset(
    licence="numbers of a textbook figure",
    source="K. Murphy, Probabilistic Machine Learning: Advanced Topics (2023), Fig. 20.5",
)
def parzen() -> Dataset:
    """Six points on a line, the example of a Parzen window."""
    x = torch.tensor([-2.1, -1.3, -0.4, 1.9, 5.1, 6.2])
    return Dataset({"x": x.unsqueeze(-1)})


@dataset(
    licence="published facts",
    source="D. Rubin, Estimation in Parallel Randomized Experiments, J. Educ. Stat. 6 (1981)",
)
def eight_schools() -> Dataset:
    """Effects `y` of coaching on test scores in eight schools, with standard errors `sigma`."""
    y = torch.tensor([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    sigma = torch.tensor([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    return Dataset({"y": y, "sigma": sigma})
