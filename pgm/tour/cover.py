"""The picture of the README: `python -m pgm.tour.cover docs/tour.png` writes it."""

import sys
from pathlib import Path

from pgm.tour.models import formed, load, mixture
from pgm.tour.questions import inpainting


def cover(path: Path, *, steps: int = 300) -> Path:
    """Digits hidden by half and completed by a mixture of Gaussians; same seed, same picture.

    Args:
        path: the PNG file.
        steps: of training.
    """
    digits = load()
    held_out = formed(digits.test.x[:16], "dequantised", seed=1)
    ax, _ = inpainting(mixture(digits, steps), held_out)
    figure = ax.get_figure(root=True)
    assert figure is not None
    figure.set_size_inches(9, 4)
    figure.savefig(path, dpi=110, bbox_inches="tight", facecolor="white")
    return path


if __name__ == "__main__":
    print(cover(Path(sys.argv[1])))
