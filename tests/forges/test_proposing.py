"""An adoption as a branch of a real bare repository, with a request where a forge is declared. Merging declares it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from reconciler.core.errors import Conflict, PreconditionFailed
from reconciler.core.observed import ObservedNode
from reconciler.core.plan import Verdict
from reconciler.loop.following import Following
from reconciler.operations.declaring import Actor, Terms
from reconciler.operations.preconditions import Precondition
from reconciler.operations.proposing import Proposal, propose_adoption
from reconciler.records.drift import DriftCheck
from tests.api.control import Control, node_document, site_documents
from tests.api.promotable import change_code
from tests.controlplane import Clone, run_git
from tests.forges.board import Board, board_at
from tests.forges.server import TOKEN, ForgeServer, forge_server
from tests.upstream.conftest import ENVIRONMENT, Followed

ADA = Actor("Ada | @all", "ada@example.com")
FOUND = {
    "field": "release wp-content/plugins/by-hand/",
    "desired": "absent",
    "observed": "unknown",
    "cause": "changed on the node",
    "heals": False,
}


@pytest.fixture
def board(followed: Followed, person: Clone) -> Iterator[Board]:
    with forge_server("github") as server, board_at(followed, person, server) as found:
        check(found)
        yield found


def check(board: Board, *differences: dict[str, object]) -> None:
    """A drift check finds what was changed by hand."""
    found = DriftCheck(
        id=uuid4(),
        environment_id=board.followed.environment(),
        status="drifted",
        differences=differences or (FOUND,),
        created_at=board.clock(),
    )
    board.tools.state.records.drift_checks.save(found)


def propose(board: Board, actor: Actor = ADA) -> Proposal:
    return propose_adoption(board.followed.environment(), board.tools.state, board.tools.settings, actor, board.clock())


def branches(board: Board) -> set[str]:
    return set(run_git(board.followed.forge, "for-each-ref", "--format=%(refname:lstrip=2)", "refs/heads").split())


def merge(board: Board, branch: str) -> str:
    """By plain Git, as a person does."""
    clone = board.person.path
    run_git(clone, "fetch", "-q", "origin")
    run_git(clone, "checkout", "-q", "main")
    run_git(clone, "reset", "-q", "--hard", "origin/main")
    run_git(clone, "merge", "-q", "--no-ff", "--no-edit", f"origin/{branch}")
    run_git(clone, "push", "-q", "origin", "HEAD:main")
    return run_git(clone, "rev-parse", "HEAD")


def test_a_branch_and_a_request(followed: Followed, person: Clone, server: ForgeServer) -> None:
    with board_at(followed, person, server) as board:
        check(board)
        head = board.head()
        made = propose(board)
        assert made.release_id is not None
        assert made.branch == f"trueup/adopt-shop-production-{made.release_id.hex[:8]}"
        assert (board.head(), board.followed.local("rev-parse", "main")) == (head, head), "nothing is declared yet"
        assert branches(board) == {"main", made.branch}
        assert run_git(followed.forge, "rev-parse", f"{made.branch}~1") == head
        assert run_git(followed.forge, "log", "-1", "--format=%s|%ae|%ce", made.branch) == (
            "Adopt what was changed in shop/production|ada@example.com|trueup@localhost"
        )
        (request,) = server.requests
        assert (request.branch, request.base) == (made.branch, "main")
        assert request.title == "Adopt what was changed in shop/production"
        assert "- `wp-content/plugins/by-hand/`" in request.body
        assert "`Ada ¦ @all`" in request.body
        assert made.url == f"{server.url}/acme/store/pulls/1"
        assert TOKEN not in f"{made}"
        (entry, *_) = board.tools.state.records.audit.latest()
        assert (entry.entry.operation, entry.entry.who) == ("drift-adopt-branch", "ada@example.com")


def test_asked_again_it_is_the_same(board: Board) -> None:
    first = propose(board)
    check(board)
    board.pass_time(hours=1)
    assert propose(board) == first
    assert len(board.server.requests) == 1
    assert branches(board) == {"main", first.branch}


def test_another_finding_is_another_branch(board: Board) -> None:
    first = propose(board)
    check(board, FOUND, {**FOUND, "field": "release wp-content/themes/by-hand/"})
    assert propose(board).branch != first.branch


def test_merged_by_plain_git_it_is_declared(board: Board) -> None:
    former = board.tools.state.fleet().release_id(board.followed.fleet.environments_by_key["shop/production"])
    made = propose(board)
    # Meanwhile somebody changed something else, and the branch is older than that.
    board.take(board.person.push({"README.md": "Hello.\n"}))
    commit = merge(board, made.branch)
    board.take(commit)
    release = board.followed.fleet.environments_by_key["shop/production"].manifest.spec.release
    assert release is not None
    assert (release.origin, release.made_from, release.id) == ("adopt", former, made.release_id)
    fleet, tools = board.tools.state.fleet(), board.tools
    step = tools.decide(fleet, tools.remembered(fleet)).for_environment(board.followed.environment())
    assert step is not None
    assert (step.action.verb, step.verdict) == ("adopt", Verdict.APPLY)
    assert board.server.told(commit) == [("pending", "1 environment changes.")]


OPTION = {
    "field": "options.blogname",
    "desired": "Shop",
    "observed": "The shop",
    "cause": "changed on the node",
    "heals": True,
    "value": "The shop",
}


def declare_option(board: Board) -> None:
    path = "sites/shop/environments/production.yaml"
    board.take(
        board.person.push({path: board.person.read(path).replace("spec:\n", "spec:\n  options: {blogname: Shop}\n")})
    )


def test_options_alone_need_no_release(board: Board) -> None:
    declare_option(board)
    former = board.tools.state.fleet().release_id(board.followed.fleet.environments_by_key["shop/production"])
    check(board, OPTION)
    made = propose(board)
    assert made.release_id is None
    assert "- `options.blogname: The shop`" in board.server.requests[-1].body
    assert "makes a release" not in board.server.requests[-1].body
    board.take(merge(board, made.branch))
    environment = board.followed.fleet.environments_by_key["shop/production"]
    assert environment.manifest.spec.options == {"blogname": "The shop"}
    assert board.tools.state.fleet().release_id(environment) == former
    check(board, {**OPTION, "value": "Another shop"})
    assert propose(board).branch != made.branch


def test_options_beside_code(board: Board) -> None:
    declare_option(board)
    check(board, FOUND, OPTION)
    made = propose(board)
    board.take(merge(board, made.branch))
    spec = board.followed.fleet.environments_by_key["shop/production"].manifest.spec
    assert spec.release is not None
    assert (spec.release.id, spec.options) == (made.release_id, {"blogname": "The shop"})
    body = board.server.requests[-1].body
    assert "- `wp-content/plugins/by-hand/`" in body
    assert "- `options.blogname: The shop`" in body


def test_where_another_release_is_served_by_then_the_plan_blocks_it(board: Board) -> None:
    made = propose(board)
    # Deployed meanwhile, and served: the document says so, and so does the node.
    other = "0c0f0000-0000-4000-8000-000000000001"
    text = board.person.read(ENVIRONMENT)
    board.take(board.person.push({ENVIRONMENT: f"{text.rstrip()}\n  release: {{id: {other}}}\n"}))
    board.observe()
    tools, environment = board.tools, board.followed.environment()
    fleet = tools.state.fleet()
    former = str(run_git(board.followed.forge, "show", f"{made.branch}:{ENVIRONMENT}")).partition("made_from: ")[2]
    former = former.split()[0]
    # The node still has the one that was to be adopted.
    (node,) = fleet.nodes.values()
    answer = tools.remembered(fleet)[node.slug]
    assert isinstance(answer, ObservedNode)
    there = answer.environments[str(environment)]
    assert there.applied is not None
    kept = there.applied.model_copy(update={"releases": (former, other)})
    seen = answer.model_copy(update={"environments": {str(environment): there.model_copy(update={"applied": kept})}})
    tools.state.records.observations.save(node.id, seen, board.clock())
    adopting = run_git(board.followed.forge, "show", f"{made.branch}:{ENVIRONMENT}")
    commit = board.take(board.person.push({ENVIRONMENT: f"{adopting}\n"}))
    fleet = tools.state.fleet()
    step = tools.decide(fleet, tools.remembered(fleet)).for_environment(environment)
    assert step is not None
    assert step.verdict is Verdict.BLOCKED
    assert f"Release {former} was to be adopted as it was served, and {other} is served by now." in str(step.reason)
    ((state, description),) = board.server.told(commit)
    assert (state, description[:26]) == ("failure", "shop/production: Blocked: ")


def test_without_a_forge_it_says_what_to_do(board: Board) -> None:
    board.take(board.person.push({"platform.yaml": "apiVersion: trueup/v1\nkind: Platform\n"}))
    made = propose(board)
    assert made.url is None
    assert f"Open a request that merges {made.branch} into main" in made.note
    assert made.branch in branches(board)


@pytest.mark.parametrize("trouble", ["away", "secret"])
def test_a_forge_that_opens_none(board: Board, trouble: str) -> None:
    if trouble == "secret":
        board.secrets.remove("forge")
    board.server.answers = [503] * 2 if trouble == "away" else []
    made = propose(board)
    assert made.url is None
    assert "no request could be opened" in made.note
    assert ("secret set forge" if trouble == "secret" else "answered 503") in made.note
    board.server.answers = []
    board.secrets.put("forge", {"token": TOKEN})
    assert propose(board).url == f"{board.server.url}/acme/store/pulls/1"


# Refused


def test_nothing_was_found(board: Board) -> None:
    check(board, {**FOUND, "field": "file /etc/nginx/nginx.conf"})
    with pytest.raises(Conflict, match="found no code"):
        propose(board)
    assert branches(board) == {"main"}


def test_what_is_not_pushed_yet(board: Board) -> None:
    board.followed.set_cache(redis=False)
    board.pass_time(seconds=1)
    check(board)
    with pytest.raises(Conflict, match="not pushed yet"):
        propose(board)


def test_a_condition_that_does_not_hold(board: Board) -> None:
    seen = Precondition("environment", board.followed.environment(), frozenset({99}))
    with pytest.raises(PreconditionFailed):
        propose(board, Actor("Ada", "ada@example.com", terms=Terms(precondition=seen)))
    assert branches(board) == {"main"}


def test_held(board: Board) -> None:
    start = board.head()
    board.take(board.person.push({"README.md": "Hello.\n"}))
    board.followed.rewind(start)
    assert board.look() == "held"
    with pytest.raises(Conflict, match="not in step"):
        propose(board)


def test_a_repository_that_is_away_or_refuses(board: Board) -> None:
    away = board.followed.forge.with_name("away")
    board.followed.forge.rename(away)
    with pytest.raises(Conflict, match="did not answer"):
        propose(board)
    away.rename(board.followed.forge)
    hook = board.followed.forge / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho only main may be pushed >&2\nexit 1\n")
    hook.chmod(0o755)
    with pytest.raises(Conflict, match=r"does not take the branch.*only main may be pushed"):
        propose(board)
    hook.unlink()
    assert propose(board).url


def test_without_an_upstream(board: Board) -> None:
    settings = board.tools.settings.model_copy(update={"upstream": None})
    with pytest.raises(Conflict, match="follows no repository"):
        propose_adoption(board.followed.environment(), board.tools.state, settings, ADA, board.clock())


def test_a_branch_of_somebody_elses_of_that_name_is_left_as_it_is(board: Board) -> None:
    made = propose(board)
    clone = board.person.path
    run_git(clone, "fetch", "-q", "origin")
    run_git(clone, "checkout", "-q", "-B", "mine", f"origin/{made.branch}")
    (clone / "README.md").write_text("A word more.\n")
    run_git(clone, "add", "-A")
    run_git(clone, "commit", "-q", "-m", "A word more")
    run_git(clone, "push", "-q", "origin", f"mine:{made.branch}")
    more = run_git(clone, "rev-parse", "HEAD")
    assert propose(board).commit == more
    assert run_git(board.followed.forge, "rev-parse", made.branch) == more


def test_by_the_api_with_a_key(control: Control, tmp_path: Path) -> None:
    """The same request again is answered as it was, without a look at the repository."""
    upstream = tmp_path / "upstream.git"
    run_git(tmp_path, "init", "-q", "--bare", "--initial-branch=main", str(upstream))
    control.add({"nodes/web-1.yaml": node_document(), **site_documents("shop")})
    settings = control.settings.model_copy(update={"upstream": f"file://{upstream}"})
    assert Following(settings, control.state, control.clock).look().state == "in-step"
    control.app.state.dependencies = replace(control.app.state.dependencies, settings=settings)
    (environment,) = control.state.fleet().environments
    change_code(control, environment)
    url, key = f"/api/environments/{environment}/drift/adopt/branch", {"Idempotency-Key": "one"}
    first = control.session().post(url, headers=key)
    assert first.status_code == 201, first.text
    assert (first.json()["base"], first.json()["request_url"]) == ("main", None)
    upstream.rename(upstream.with_name("away"))
    again = control.session().post(url, headers=key)
    assert (again.status_code, again.json()) == (201, first.json())
    answer = control.session().post(url)
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict"), "without the key it is looked again"
