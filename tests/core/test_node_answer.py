"""What a node answers is measured and checked before anything is decided. A hacked one says what it likes."""

from __future__ import annotations

import copy
import json
import random
import re
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from reconciler.core import views
from reconciler.core.fleet import Fleet
from reconciler.core.node_answer import LONGEST_TEXT, MOST_BYTES, MOST_VALUES, AnswerRefused, read_answer
from reconciler.core.observed import ObservedNode, Unreachable
from reconciler.core.plan import Plan, decide, plan_data
from reconciler.core.snapshot import shareable
from tests.core import documents as d
from tests.core.fake_node import NOW, ROLES, configured, provisioned, served
from tests.proof import count

OTHER = str(uuid4())
MUTATIONS = count(short=400, full=5_000)
KEYS = ("acme/production", "globex/production")


def two() -> dict[str, Any]:
    """Documents of two sites on one node; the second has a domain, holds and options."""
    documents = d.small()
    holds = [
        {"field": "domains", "owner": "Ada", "reason": "moving"},
        {"field": "release", "owner": "A", "reason": "b"},
    ]
    documents["sites/globex/site.yaml"] = d.site("Globex")
    documents["sites/globex/environments/production.yaml"] = d.environment(
        domains=[{"hostname": "shop.example.com"}], options={"blogname": "Shop"}, reconcile={"holds": holds}
    )
    return documents


FLEET = d.fleet_of(two())
IDS = {key: str(FLEET.environments_by_key[key].id) for key in KEYS}
A, B = (IDS[key] for key in KEYS)


def whole() -> dict[str, Any]:
    """What a node that is as it should be answers, all of it."""
    node = provisioned(FLEET.node_variables(FLEET.nodes_by_slug["web-1"].id))
    variables = [FLEET.environment_variables(FLEET.environments_by_key[key].id) for key in KEYS]
    answer: dict[str, Any] = json.loads(
        node.model_copy(update={"environments": {one.id: configured(one) for one in variables}}).model_dump_json()
    )
    del answer["unusable"]
    failure = {"code": "DNS_ELSEWHERE", "message": "elsewhere", "at": NOW.isoformat(), "count": 1}
    shop = answer["environments"][B]["domains"]["shop.example.com"]
    shop |= {"failure": failure, "served": json.loads(served(days=1).model_dump_json())}
    answer["environments"][B]["differences"] = [{"path": "wp-content/x.php", "kind": "unknown", "area": "release"}]
    answer["logins"] = [{"at": NOW.isoformat(), "user": "root", "address": "192.0.2.1", "key": "SHA256:x"}]
    answer["preview"] = {"domain": "example.com", "fingerprint": "0" * 64, "files": {"/x": "0"}, "found": {"/x": None}}
    return answer


def said(change: Any = None) -> bytes:
    answer = whole()
    if change:
        change(answer)
    return json.dumps(answer).encode()


def decided(answer: ObservedNode | Unreachable, fleet: Fleet = FLEET) -> Plan:
    return decide(fleet, {"web-1": answer}, ROLES, NOW)


def test_a_whole_answer_is_understood_as_it_is() -> None:
    answer = read_answer(said())
    assert answer.unusable == {}
    assert set(answer.environments) == {A, B}
    assert answer == ObservedNode.model_validate(whole())


NO_ANSWERS: dict[str, Callable[[], bytes]] = {
    "a name of 15 MB": lambda: said(lambda one: one.update(hostname="x" * (15 << 20))),
    "an operating system of 300 characters": lambda: said(lambda one: one.update(os_id="x" * 300)),
    "bytes without end": lambda: b'{"hostname": "' + b"x" * MOST_BYTES,
    "too many values": lambda: said(lambda one: one.update(more=[0] * (MOST_VALUES + 1))),
    "a text that is too long, where nobody looks": lambda: said(lambda one: one.update(more="x" * (LONGEST_TEXT + 1))),
    "nested deeper than a stack": lambda: b'{"hostname": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "nested deep": lambda: said(lambda one: one.update(more=json.loads("[" * 50 + "]" * 50))),
    "half a character": lambda: said(lambda one: one.update(more="\ud800")),
    "half a character as a key": lambda: said(lambda one: one.update(more={"\ud800": 1})),
    "no number": lambda: said(lambda one: one.update(memory_bytes=float("nan"))),
    "an infinite number": lambda: said(lambda one: one.update(memory_bytes=float("inf"))),
    "a number of 5,000 digits": lambda: said().replace(b'"memory_bytes": 0', b'"memory_bytes": ' + b"9" * 5_000),
    "less than nothing": lambda: said(lambda one: one.update(disk_free_bytes=-1)),
    "more than there is": lambda: said(lambda one: one.update(disk_free_bytes=1 << 70)),
    "a moment that cannot be reckoned with": lambda: said(lambda one: one.update(observed_at="9999-12-31T23:59:59Z")),
    "another form of manifest": lambda: said(lambda one: one["applied"].update(format=2)),
    "environments in a list": lambda: said(lambda one: one.update(environments=[])),
    "too many environments": lambda: said(lambda one: one.update(environments=dict.fromkeys(map(str, range(5_001))))),
    "logins without end": lambda: said(lambda one: one.update(logins=one["logins"] * 1_001)),
    "nothing": lambda: b"",
    "null": lambda: b"null",
    "a list": lambda: b"[]",
    "no JSON": lambda: b"hello",
    "no UTF-8": lambda: b"\xff\xfe",
    "another encoding": lambda: said().decode().encode("utf-16"),
    "more after it": lambda: said() + b"{}",
}
"""Made when they are asked for: every process that runs tests imports this, and some have 16 MB."""


@pytest.mark.parametrize("what", NO_ANSWERS)
def test_what_is_no_answer_is_refused_in_a_line(what: str) -> None:
    with pytest.raises(AnswerRefused) as refused:
        read_answer(NO_ANSWERS[what]())
    assert len(str(refused.value)) < 400
    assert str(refused.value).isprintable()


def _id(there: dict[str, Any], key: str, to: str) -> None:
    there["environments"][to] = there["environments"].pop(key)


NO_IDS = [
    "no-uuid",
    "",
    "x" * 300,
    A.upper(),
    f"{{{A}}}",
    A.replace("-", ""),
    f"urn:uuid:{A}",
    "../../etc",
    "\x1b[2J\n",
]


@pytest.mark.parametrize("key", NO_IDS)
@pytest.mark.parametrize("there", [{}, whole()["environments"][A]], ids=["nothing", "a whole environment"])
def test_an_id_that_is_none_is_set_aside_and_told_and_the_others_go_on(key: str, there: dict[str, Any]) -> None:
    answer = read_answer(said(lambda one: one["environments"].update({key: there})))
    assert set(answer.environments) == {A, B}
    plan = decided(answer)
    assert {step.action.target for step in plan.steps} == {"globex/production"}, "that one differs; nothing crashed"
    assert [(one.node, one.environments) for one in plan.silent] == [("web-1", ())]
    assert views.text(plan).isprintable() or "\x1b" not in views.text(plan)
    assert "no environment's id" in views.text(plan)


def _in_b(*path: str | int) -> Any:
    """Changes what is said of B at that place."""

    def change_to(value: Any) -> Any:
        def change(answer: dict[str, Any]) -> None:
            there = answer["environments"][B]
            for part in path[:-1]:
                there = there[part]
            there[path[-1]] = value

        return change

    return change_to


UNUSABLE = {
    "null": lambda one: one["environments"].update({B: None}),
    "a text": lambda one: one["environments"].update({B: "x"}),
    "nothing in it": lambda one: one["environments"].update({B: {}}),
    "a manifest that is a list": _in_b("applied")([]),
    "variables that are a list": _in_b("applied", "variables")([]),
    "a path of 5,000 characters": _in_b("applied", "files")({"/" * 5_000: "x"}),
    "2,000 files": _in_b("applied", "files")({str(number): "x" for number in range(2_000)}),
    "a digest of a megabyte": _in_b("applied", "digest")("f" * 300_000),
    "a unit that is a number": _in_b("applied", "services")([1]),
    "moments that cannot be reckoned with": _in_b("applied", "applied_at")("9999-12-31T23:00:00Z"),
    "a failure in the year 9999": _in_b("domains", "shop.example.com", "failure", "at")("9999-12-31T23:59:00Z"),
    "a failure less than never": _in_b("domains", "shop.example.com", "failure", "count")(-100),
    "a certificate for ever": _in_b("domains", "shop.example.com", "served", "not_after")("9999-12-31T00:00:00Z"),
    "a message of a megabyte": _in_b("domains", "shop.example.com", "failure", "message")("x" * 300_000),
    "an option of a megabyte": _in_b("options", "blogname")("x" * 300_000),
    "a difference of another kind": _in_b("differences")([{"path": "x", "kind": "worse", "area": "core"}]),
    "a version that is a list": _in_b("wordpress_version")(["7.1"]),
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_one_bad_environment_is_unknown_and_told_and_the_others_go_on(what: str) -> None:
    answer = read_answer(said(UNUSABLE[what]))
    assert set(answer.environments) == {A}
    assert isinstance(answer.about(FLEET.environments_by_key[KEYS[1]].id), Unreachable)
    assert answer.about(FLEET.environments_by_key[KEYS[0]].id) is answer
    plan = decided(answer)
    assert plan.steps == (), "unknown is not missing: nothing is made anew where something may be"
    assert [one.environments for one in plan.silent] == [("globex/production",)]
    assert all(len(line) < 600 for line in views.text(plan).splitlines())
    kept = ObservedNode.model_validate_json(answer.model_dump_json())
    assert kept == answer, "it is remembered so"
    assert decided(shareable(kept)).silent[0].environments == ("globex/production",), "and shared so"


STRANGE = [
    None,
    True,
    0,
    -1,
    1.5,
    "",
    "x",
    "\x1b[31m\n\u202e",
    [],
    {},
    [[]],
    {"id": []},
    ["x"],
    [None],
    {"x": {}},
    "9" * 30,
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*path, key))


def strange_answers(number: int) -> Iterator[ObservedNode | Unreachable]:
    """What is made of answers in which something stands that nobody expects there."""
    whole_answer, chance = whole(), random.Random(11)
    everywhere = [path for path in places(whole_answer) if path]
    for _ in range(number):
        answer = copy.deepcopy(whole_answer)
        for path in chance.sample(everywhere, chance.choice((1, 1, 1, 3))):
            _put(answer, path, copy.deepcopy(chance.choice(STRANGE)))
        try:
            yield read_answer(json.dumps(answer).encode())
        except AnswerRefused as error:
            yield Unreachable(since=NOW, reason=str(error))


def test_whatever_stands_anywhere_a_plan_comes_of_it() -> None:
    refused = unusable = 0
    for seen in strange_answers(MUTATIONS):
        plan = decided(seen)
        told = views.text(plan) + views.markdown(plan) + json.dumps(plan_data(plan), default=str)
        assert plan.digest()
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", told), "nothing of it is obeyed by a terminal"
        refused += isinstance(seen, Unreachable)
        if isinstance(seen, ObservedNode):
            unusable += len(seen.unusable)
            assert ObservedNode.model_validate_json(seen.model_dump_json()) == seen
            decided(shareable(seen))
    assert refused
    assert unusable > refused, "most of an answer is about environments, and takes only them with it"


def _put(answer: Any, path: tuple[Any, ...], value: Any) -> None:
    for part in path[:-1]:
        if not isinstance(answer, (dict, list)) or (isinstance(answer, dict) and part not in answer):
            return
        if isinstance(answer, list) and not (isinstance(part, int) and part < len(answer)):
            return
        answer = answer[part]
    if isinstance(answer, dict) or (isinstance(answer, list) and isinstance(path[-1], int) and path[-1] < len(answer)):
        answer[path[-1]] = value


@pytest.mark.parametrize(
    "what", ["a name of 15 MB", "too many values", "nested deeper than a stack", "bytes without end"]
)
def test_memory_does_not_grow_with_what_a_node_says(what: str) -> None:
    """What is refused takes no more than a few times what arrived, and nothing of it stays."""
    answer = NO_ANSWERS[what]()
    tracemalloc.start()
    try:
        with pytest.raises(AnswerRefused):
            read_answer(answer)
        stays, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 << 20, "it is measured before it is taken apart"
    assert stays < 1 << 20


def test_an_orphans_name_is_only_told_where_it_is_one() -> None:
    """It is told as part of a command to type."""

    def change(answer: dict[str, Any]) -> None:
        answer["environments"][OTHER] = copy.deepcopy(answer["environments"][A])
        answer["environments"][OTHER]["applied"]["variables"] |= {"site": "x; rm -rf ~", "slug": "y"}

    told = views.text(decided(read_answer(said(change))))
    assert f"orphan {OTHER} on web-1" in told
    assert "rm -rf" not in told
