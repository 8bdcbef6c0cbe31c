"""`python -m tests.proof weigh [--long] REPORT…`: take what a run's JUnit report measured into the table of weights."""

import argparse
from pathlib import Path

from tests.proof.weights import weigh


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.proof", description=__doc__)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("weigh", help="renew tests/weights.json from JUnit reports (pytest --junitxml)")
    command.add_argument("reports", nargs="+", type=Path)
    command.add_argument("--long", action="store_true", help="the reports are of `make test-long`")
    given = parser.parse_args()
    print(f"{weigh(given.reports, 'long' if given.long else 'short')} files weighed.")


main()
