"""`python -m privacy`: what a noise spends, and what a ledger holds.

python -m privacy budget --epsilon 1 --rows 60000 --batch 256 --epochs 15
python -m privacy budget --sigma 1.3 --rows 60000 --batch 256 --epochs 15
python -m privacy ledger trial.jsonl
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from privacy.accounting import ACCOUNTANTS, calibrate, check_delta, compose
from privacy.ledger import Ledger


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit status.

    Example:
        >>> main(["budget", "--sigma", "1.1", "--rate", "0.0042667", "--steps", "14062"])
        sigma 1.1, rate 0.0042667, 14062 steps, delta 1e-05
          epsilon by prv  2.392
          epsilon by pld  2.382
          epsilon by rdp  2.597
        0
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        print(options.run(options))
    except ValueError as error:
        parser.error(str(error))
    return 0


def _budget(options: argparse.Namespace) -> str:
    rate = _rate(options)
    steps = options.steps or round(options.epochs / rate)
    check_delta(options.delta, rows=options.rows)
    sigma = options.sigma
    if sigma is None:
        sigma = calibrate(
            options.epsilon,
            delta=options.delta,
            rate=rate,
            steps=steps,
            accountant=options.accountant,
        )
    spent = {
        accountant: compose([(sigma, rate, steps)], delta=options.delta, accountant=accountant)
        for accountant in ACCOUNTANTS
    }
    head = f"sigma {sigma:.5g}, rate {rate:.5g}, {steps} steps, delta {options.delta:g}"
    lines = [head, *(f"  epsilon by {a}  {e:.3f}" for a, e in spent.items())]
    if 0 < spent["prv"] == spent["rdp"]:
        lines.append("  prv's arithmetic does not reach this delta: its figure is the rdp bound")
    return "\n".join(lines)


def _ledger(options: argparse.Namespace) -> str:
    if not options.path.exists():
        raise ValueError(f"There is no ledger at {options.path}; a fit begins one, ledger=.")
    ledger = Ledger(options.path, head=options.seal)
    return f"{ledger}\nsealed {ledger.head}"


def _rate(options: argparse.Namespace) -> float:
    if options.rate is not None:
        return float(options.rate)
    if options.rows is None or options.batch is None:
        raise ValueError("The sampling rate is unknown: pass --rate, or both --rows and --batch.")
    return float(options.batch / options.rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m privacy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    ledger = commands.add_parser("ledger", help="all releases in a ledger's file, and their sum")
    ledger.add_argument("path", type=Path)
    ledger.add_argument("--seal", help="refuse the file if it was shortened or begun anew since")
    ledger.set_defaults(run=_ledger)
    _add_budget(commands.add_parser("budget", help="noise from epsilon, or epsilon from noise"))
    return parser


def _add_budget(budget: argparse.ArgumentParser) -> None:
    budget.set_defaults(run=_budget)
    target = budget.add_mutually_exclusive_group(required=True)
    target.add_argument("--epsilon", type=float, help="the budget; answers with the noise")
    target.add_argument("--sigma", type=float, help="the noise multiplier; answers with epsilon")
    budget.add_argument("--delta", type=float, default=1e-5)
    budget.add_argument("--rate", type=float, help="probability with which a row is in a lot")
    budget.add_argument("--rows", type=int, help="the declared number of rows")
    budget.add_argument("--batch", type=float, help="rows in a lot on average")
    length = budget.add_mutually_exclusive_group(required=True)
    length.add_argument("--steps", type=int)
    length.add_argument("--epochs", type=float)
    budget.add_argument("--accountant", choices=ACCOUNTANTS, default="prv")


if __name__ == "__main__":
    raise SystemExit(main())
