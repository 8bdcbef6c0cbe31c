"""What was declared one after the other, and which releases that leaves behind."""

import pytest

from reconciler.core.release_order import release_order


@pytest.mark.parametrize(
    ("declared", "standing", "left"),
    [
        ("", "", ""),
        ("1", "1", ""),
        ("11233", "123", ""),
        ("1232", "12", "3"),
        ("12321", "1", "23"),
        # Further deploys stand on what was gone back to.
        ("12324", "124", "3"),
        ("123242", "12", "34"),
        ("1232421", "1", "234"),
        ("123214", "14", "23"),
        # A revert of the rollback declares it again: it is bad no more.
        ("12323", "123", ""),
        ("123232", "12", "3"),
        # Somebody names one that was left, from further back.
        ("123213", "13", "2"),
        # A deploy that failed was taken back.
        ("1232423", "123", "4"),
    ],
)
def test_the_order(declared: str, standing: str, left: str) -> None:
    order = release_order(declared)
    assert ("".join(order.standing), order.left) == (standing, frozenset(left))
