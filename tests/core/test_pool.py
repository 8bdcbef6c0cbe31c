"""How many trees a node keeps ready for new sites."""

from __future__ import annotations

from reconciler.core.changes import diff_node
from reconciler.core.fleet import Fleet
from reconciler.core.variables import NodeVariables
from tests.core import documents as d
from tests.core.fake_node import provisioned

ROLE = "0" * 64


def fleet(**spec: int) -> Fleet:
    documents = d.small()
    documents["nodes/web-1.yaml"]["spec"].update(spec)
    return d.fleet_of(documents)


def variables(**spec: int) -> NodeVariables:
    found = fleet(**spec)
    return found.node_variables(found.nodes_by_slug["web-1"].id)


def test_a_node_whose_document_says_nothing_is_told_what_it_was_told_before_there_were_pools() -> None:
    told = variables().settings()
    assert "pool" not in told
    assert variables(pool=1).digest() == variables().digest()
    assert NodeVariables.model_validate(told) == variables()


def test_another_number_is_told_and_moves_the_node() -> None:
    for count in (0, 3):
        assert variables(pool=count).settings()["pool"] == count
        node = provisioned(variables(), role_digest=ROLE)
        changes = diff_node(variables(pool=count), ROLE, node)
        assert [(change.field, change.desired, change.observed) for change in changes] == [
            ("spec.pool", str(count), "nothing")
        ]
    back = diff_node(variables(), ROLE, provisioned(variables(pool=3), role_digest=ROLE))
    assert [(change.field, change.desired, change.observed) for change in back] == [("spec.pool", "nothing", "3")]


def test_a_number_that_is_none_stalls_the_node() -> None:
    for count in (-1, 17):
        assert "pool" in fleet(pool=count).stalled[0].message
