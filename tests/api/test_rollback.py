"""Which release a rollback declares, told by the store's history; the node answers as one that has them all."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from starlette.testclient import TestClient

from reconciler.core.observed import ObservedHealth, OnPrivateAddress
from reconciler.loop.watching import HealthWatch
from reconciler.operations.declaring import Actor
from reconciler.operations.releases import ways_back
from tests.api.control import Control, assert_error
from tests.core.fake_node import configured, provisioned
from tests.store.conftest import run_git

SOMEBODY = Actor("somebody@example.com", "api")
PATH = "sites/acme/environments/production.yaml"


@dataclass
class Shop:
    """An environment whose every declaration was applied at once."""

    control: Control
    client: TestClient
    id: UUID

    def __post_init__(self) -> None:
        self.applied: list[str] = []
        self.observe()

    @property
    def declared(self) -> str:
        fleet = self.control.state.fleet()
        return str(fleet.release_id(fleet.environment(self.id)))

    @property
    def url(self) -> str:
        return f"/api/environments/{self.id}/rollback"

    def observe(self) -> None:
        """The node has what is declared, as the one that was applied last; it keeps all that it ever had."""
        self.control.set_status(self.id, "active")
        self.applied = [*(one for one in self.applied if one != self.declared), self.declared]
        fleet = self.control.state.fleet()
        there = configured(fleet.environment_variables(self.id))
        assert there.applied is not None
        details = {one: {"wordpress_version": "7.1.1"} for one in self.applied}
        applied = there.applied.model_copy(update={"releases": tuple(self.applied), "release_details": details})
        (node,) = fleet.nodes.values()
        answer = provisioned(fleet.node_variables(node.id))
        environments = {str(self.id): there.model_copy(update={"applied": applied})}
        answer = answer.model_copy(update={"environments": environments})
        self.control.records.observations.save(node.id, answer, self.control.clock())

    def deploy(self) -> str:
        source = "https://git.example.com/shop.git"
        self.control.operations.deploy(self.id, "git", source, SOMEBODY, revision="0" * 40)
        self.observe()
        return self.declared

    def roll_back(self, **body: str) -> str:
        answer = self.client.post(self.url, json=body) if body else self.client.post(self.url)
        assert answer.status_code == 202, answer.text
        self.observe()
        return self.declared

    def revert(self, commits: int = 1) -> None:
        """Somebody reverts the newest commits of the document, the newest first."""
        store = self.control.repository.path
        for commit in run_git(store, "log", f"-{commits}", "--format=%H", "main", "--", PATH).split():
            clone = self.control.home / "clone"
            if not clone.exists():
                run_git(self.control.home, "clone", "-q", str(store), str(clone))
            run_git(clone, "pull", "-q", "--ff-only", "origin", "main")
            identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com")
            run_git(clone, *identity, "revert", "--no-edit", commit)
            run_git(clone, "push", "-q", "origin", "HEAD:main")
        self.observe()


@pytest.fixture
def shop(control: Control, client: TestClient) -> Shop:
    return Shop(control, client, control.create_site("acme")[1])


def test_two_in_a_row_step_to_older_ones(shop: Shop) -> None:
    first = shop.declared
    one, two, three = shop.deploy(), shop.deploy(), shop.deploy()
    assert [shop.roll_back() for _ in range(3)] == [two, one, first]
    said = assert_error(shop.client.post(shop.url), 409, "conflict")
    assert f"no release that is older than {first}" in said
    assert three in said, "what can be named is told"
    assert shop.roll_back(release_id=three) == three
    assert shop.roll_back() == first


def test_what_was_left_is_skipped_after_further_deploys(shop: Shop) -> None:
    one, two, _three = shop.deploy(), shop.deploy(), shop.deploy()
    assert shop.roll_back() == two
    _four = shop.deploy()
    assert shop.roll_back() == two
    shop.deploy()
    shop.deploy()
    assert [shop.roll_back(), shop.roll_back(), shop.roll_back()][1:] == [two, one]


def test_a_revert_counts_as_what_it_does(shop: Shop) -> None:
    one, two, three = shop.deploy(), shop.deploy(), shop.deploy()
    shop.revert()
    assert shop.declared == two, "the deploy of the third was reverted"
    assert shop.roll_back() == one
    shop.revert(2)
    assert shop.declared == three, "and then the rollback, and that revert"
    assert [shop.roll_back(), shop.roll_back()] == [two, one]


@pytest.mark.long
def test_the_node_is_heard_when_it_was_not_seen_since(shop: Shop) -> None:
    one, two, three = shop.deploy(), shop.deploy(), shop.deploy()
    assert shop.client.post(shop.url).status_code == 202
    shop.control.set_status(shop.id, "active")
    assert (shop.applied[-1], shop.declared) == (three, two)
    assert shop.client.post(shop.url).status_code == 202
    assert shop.declared == one


@pytest.mark.long
def test_what_the_store_never_declared_comes_last(shop: Shop) -> None:
    first, stranger, odd = shop.declared, "5a5f1f1e-7f4b-4f57-9a2b-0000000000aa", "($"
    shop.applied[:0] = [stranger, odd]
    shop.deploy()
    assert ways_back(shop.control.state, shop.id) == [first, stranger]


@pytest.mark.long
def test_any_other_change_of_the_document_does_not_count(shop: Shop) -> None:
    one, _two = shop.deploy(), shop.deploy()
    for _ in range(2):
        shop.control.push(PATH, "fastcgi: true", "fastcgi: false")
        shop.control.push(PATH, "fastcgi: false", "fastcgi: true")
    assert shop.roll_back() == one


def test_the_clock_does_not_go_back_to_what_was_left(shop: Shop) -> None:
    """A node names the release that was applied before, which is the bad one after a rollback."""
    one, two, three = shop.deploy(), shop.deploy(), shop.deploy()
    control = shop.control
    watch = HealthWatch(control.state, control.operations, SOMEBODY, control.clock, uuid4)

    def found(previous: str) -> None:
        before = OnPrivateAddress(release=previous, answers=True)
        broken = ObservedHealth(release=shop.declared, health="unhealthy", reason="500", alone=False, previous=before)
        control.records.health.save(shop.id, UUID(shop.declared), broken, control.clock(), alone=True)
        watch.tick()

    assert shop.roll_back() == two
    found(three)
    assert shop.declared == two
    found(one)
    assert shop.declared == one


def test_a_body_may_be_left_out_and_is_an_object(shop: Shop) -> None:
    shop.deploy()
    assert_error(shop.client.post(shop.url, json=None, content=b"null"), 400, "invalid_request")
    assert_error(shop.client.post(shop.url, json=[]), 400, "invalid_request")
    assert_error(shop.client.post(shop.url, json={"id": 1}), 400, "invalid_request")
    assert shop.client.post(shop.url, json={}).status_code == 202
