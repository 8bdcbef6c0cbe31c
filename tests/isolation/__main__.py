"""Counts the cases, by kind: ``python -m tests.isolation``."""

from collections import Counter

from tests.isolation.cases import CASES
from tests.isolation.plants import PLANTS


def main() -> None:
    cases = Counter(case.plant.kind for case in CASES)
    runs = Counter(kind for kind, _, _ in {(case.plant.kind, case.operation, case.alone) for case in CASES})
    plants = Counter(plant.kind for plant in PLANTS)
    short = sum(case.is_short for case in CASES)
    for kind in cases:
        print(f"{kind:14}{plants[kind]:4} plants {runs[kind]:4} runs {cases[kind]:5} cases")
    print(f"{len(CASES)} cases, {short} of them in `make test`")


if __name__ == "__main__":
    main()
