"""`python -m pgm tour | families | data`: the tour, the table of abilities, the data sets."""

import argparse
from pathlib import Path

from pgm import catalogue, data
from pgm.tour import run


def main(arguments: list[str] | None = None) -> None:
    """Runs one of the commands."""
    options = _parser().parse_args(arguments)
    match options.command:
        case "tour":
            run(options.out, effort=options.effort)
        case "families":
            _families(options.write)
        case "data":
            print(data.describe(options.name))


def _families(document: Path | None) -> None:
    if document is None:
        print(catalogue.table(), catalogue.LEGEND, catalogue.refusals(), sep="\n\n")
        return
    text = catalogue.written(document.read_text(encoding="utf-8"))
    document.write_text(text, encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pgm", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    tour = commands.add_parser("tour", help="every kind of model on real data; writes a page")
    tour.add_argument("--out", type=Path, default=Path("out"), help="folder of the page")
    tour.add_argument("--effort", type=float, default=1.0, help="share of the training steps")
    families = commands.add_parser("families", help="which family can be asked what, and why not")
    families.add_argument("--write", type=Path, metavar="FILE", help="renew the table in FILE")
    sets = commands.add_parser("data", help="the data sets, or one of them")
    sets.add_argument("name", nargs="?", help="a set")
    return parser


if __name__ == "__main__":
    main()
