"""What became of a commit is told to the forge: when it is taken over, applied or held; each once."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

import pytest

from reconciler.core.intents import Edit, RecordVersions, evaluate
from reconciler.core.jobs import JobErrorCode
from reconciler.forges import client as http
from reconciler.loop.announcing import FIRST_WAIT, LONGEST_WAIT, waiting
from reconciler.store.importing import TRUEUP
from reconciler.store.repository import Snapshot
from tests.controlplane import Clone, run_git, site_documents
from tests.forges.board import Board, board_at
from tests.forges.server import HANG_UP, SILENT, TOKEN, ForgeServer, forge_server
from tests.proof import sampled
from tests.upstream.conftest import ENVIRONMENT, Followed

FAILED = {"github": "failure", "gitea": "failure", "gitlab": "failed"}


@pytest.fixture
def board(followed: Followed, person: Clone) -> Iterator[Board]:
    with forge_server("github") as server, board_at(followed, person, server) as found:
        yield found


def test_pending_then_success_each_told_once(followed: Followed, person: Clone, server: ForgeServer) -> None:
    with board_at(followed, person, server) as board:
        commit = board.change()
        pending = ("pending", "1 environment changes.")
        assert server.told(commit) == [pending]
        board.announcing.work()
        board.restart()
        board.announcing.work()
        assert server.told(commit) == [pending]
        board.observe()
        board.announcing.work()
        assert server.told(commit) == [pending, ("success", "Applied: 1 environment.")]
        board.settle()
        asked = len(server.asked)
        for _ in range(3):
            board.restart()
            board.announcing.work()
            board.look()
        assert len(server.asked) == asked


@pytest.mark.long
def test_nodes_are_counted_too(board: Board) -> None:
    node = board.person.read("nodes/web-1.yaml")
    environment = board.person.read(ENVIRONMENT).replace("redis: true", "redis: false")
    more = f"{node.rstrip()}\n  redis: {{memory_percent: 12}}\n"
    commit = board.take(board.person.push({"nodes/web-1.yaml": more, ENVIRONMENT: environment}))
    assert board.server.told(commit) == [("pending", "1 environment and 1 node change.")]
    board.observe()
    board.announcing.work()
    assert board.server.told(commit)[-1] == ("success", "Applied: 1 environment and 1 node.")


@pytest.mark.long
def test_another_version_of_wordpress_is_not_overlooked(board: Board) -> None:
    commit = board.change("redis: true", "redis: true\n  wordpress: {version: 7.0.3}")
    why = "Another WordPress version is another release: give spec.release.id a new id."
    assert board.server.told(commit) == [("failure", f"shop/production: Blocked: {why}")]


@pytest.mark.long
def test_versions_that_are_recorded_overtake_nobody(board: Board) -> None:
    """An adoption by a push: which versions it has is a commit of our own, before the success is told."""
    former = board.followed.fleet.release_id(board.followed.fleet.environments_by_key["shop/production"])
    release = f"{{id: 0c0f0000-0000-4000-8000-000000000000, origin: adopt, made_from: {former}}}"
    commit = board.change("redis: true", f"redis: true\n  release: {release}")
    recorded = RecordVersions(
        environment_id=board.followed.environment(),
        release_id=UUID("0c0f0000-0000-4000-8000-000000000000"),
        wordpress_version="7.0.3",
        plugins={"by-hand": "1.7"},
        themes={},
    )
    state = board.tools.state

    def edit(snapshot: Snapshot) -> Edit:
        return evaluate(recorded, state.fleet_of(snapshot.revision, snapshot.documents), {}, board.clock())

    state.repository.commit(edit, TRUEUP)
    board.observe()
    board.announcing.work()
    told = [("pending", "1 environment changes."), ("success", "Applied: 1 environment.")]
    assert board.server.told(commit) == told


def test_nothing_to_apply_is_a_success_at_once(board: Board) -> None:
    commit = board.take(board.person.push({"README.md": "Hello.\n"}))
    assert board.server.told(commit) == [("success", "Nothing to apply.")]
    assert board.row(commit).request is None, "the forge may not know yet which request it was of"
    board.settle()
    assert not board.row(commit).is_open
    assert board.server.told(commit) == [("success", "Nothing to apply.")]


def test_a_forge_that_learns_late_of_which_request_a_merge_was(board: Board) -> None:
    commit = board.take(board.person.push({"README.md": "Hello.\n"}))
    request = board.server.request(merged_as=commit)
    asked = len(board.server.asked)
    board.announcing.work()
    assert len(board.server.asked) == asked, "not before its time"
    board.pass_time(seconds=FIRST_WAIT.total_seconds())
    board.announcing.work()
    assert len(request.comments) == 1
    board.announcing.work()
    assert not board.row(commit).is_open


def test_the_commit_that_declares_the_forge_is_told_of(followed: Followed, person: Clone) -> None:
    with forge_server("github") as server, board_at(followed, person, server) as board:
        assert server.told(board.head()) == [("success", "Nothing to apply.")]


def test_what_is_committed_here_is_told_to_nobody(board: Board) -> None:
    board.followed.set_cache(redis=False)
    assert board.look() == "in-step"
    board.announcing.work()
    assert board.server.asked == []


def test_a_merge_is_told_on_its_request_and_changed_there(
    followed: Followed, person: Clone, server: ForgeServer
) -> None:
    with board_at(followed, person, server) as board:
        commit = board.person.replace(ENVIRONMENT, "fastcgi: true", "fastcgi: false")
        server.request("other")
        server.request("cache-off", merged_as=commit)
        board.take(commit)
        assert board.comments(2) == [], "nothing is settled yet"
        board.fail_job(JobErrorCode.RELEASE_UNHEALTHY, "The home page answers 500 | <b>@all</b>.\nTraceback: secret")
        board.announcing.work()
        assert server.told(commit)[-1][0] == FAILED[server.kind]
        (failed,) = board.comments(2)
        assert failed.startswith(f"<!-- trueup {commit} -->\n**Trueup: Not applied.**")
        assert "shop/production" in failed
        assert "The home page answers 500" in failed
        assert "Traceback" not in failed
        assert "<b>" not in failed
        assert "@all" not in failed
        board.observe()
        board.announcing.work()
        (done,) = board.comments(2)
        assert "**Trueup: Applied.**" in done
        assert board.comments(1) == []
        assert server.told(commit)[-1] == ("success", "Applied: 1 environment.")


def test_a_comment_whose_answer_was_lost_is_found_again(board: Board) -> None:
    commit = board.person.push({"README.md": "Hello.\n"})
    board.server.request(merged_as=commit)
    # Status, request, comments, then the comment itself arrives and its answer doesn't.
    board.take(commit)
    (said,) = board.comments()
    board.tools.state.records.announcements.change(commit, commented=None, is_open=True)
    board.restart()
    board.announcing.work()
    assert board.comments() == [said]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (JobErrorCode.RELEASE_UNHEALTHY, "The home page answers 500."),
        (JobErrorCode.NOT_CONVERGED, "Applied, and still different: url."),
    ],
)
def test_a_failed_job_fails_the_commit(board: Board, code: JobErrorCode, message: str) -> None:
    commit = board.change()
    board.fail_job(code, message)
    board.announcing.work()
    assert board.server.told(commit)[-1] == ("failure", f"shop/production: {code}: {message}")


@pytest.mark.long
def test_a_failure_before_it_is_not_the_commits(board: Board) -> None:
    board.fail_job(JobErrorCode.NOT_CONVERGED, "Earlier.")
    board.pass_time(seconds=1)
    commit = board.change()
    assert board.server.told(commit) == [("pending", "1 environment changes.")]


def test_quarantined_by_an_earlier_commit(board: Board) -> None:
    """What was unhealthy before is declared again: nobody tries it a second time."""
    first = board.change("fastcgi: true", "fastcgi: false")
    board.fail_job(JobErrorCode.RELEASE_UNHEALTHY, "It answers 500.")
    board.change("fastcgi: false", "fastcgi: true")
    board.pass_time(hours=1)
    again = board.change("fastcgi: true", "fastcgi: false")
    assert first != again
    why = "shop/production: Quarantined until its document changes: It answers 500."
    assert board.server.told(again) == [("failure", why)]


@pytest.mark.long
def test_paused_and_blocked(board: Board) -> None:
    paused = board.person.replace(
        ENVIRONMENT, "redis: true", "redis: false\n  reconcile: {mode: paused, reason: A fair.}"
    )
    board.take(paused)
    assert board.server.told(paused) == [("failure", "shop/production: Paused: A fair.")]
    text = board.person.read(ENVIRONMENT).replace("\n  reconcile: {mode: paused, reason: A fair.}", "")
    new, former = "0c0f0000-0000-4000-8000-000000000000", "0c0f0000-0000-4000-8000-00000000000f"
    release = f"{{id: {new}, origin: adopt, made_from: {former}}}"
    blocked = board.take(board.person.push({ENVIRONMENT: f"{text.rstrip()}\n  release: {release}\n"}))
    ((state, description),) = board.server.told(blocked)
    assert state == "failure"
    assert f"Blocked: The node does not have release {former}" in description


@pytest.mark.long
def test_waiting_for_a_window_is_pending_with_that_said(board: Board) -> None:
    board.take(board.platform(reconcile={"windows": [{"kind": "deny", "cron": "* * * * *", "minutes": 5}]}))
    commit = board.change()
    ((state, description),) = board.server.told(commit)
    assert state == "pending"
    assert description.startswith("shop/production: Nothing is applied during the window")


def test_a_silent_node_is_pending_with_that_said(board: Board) -> None:
    commit = board.change()
    board.observe(silent=True)
    board.announcing.work()
    assert board.server.told(commit)[-1] == ("pending", "shop/production: Node web-1 does not answer.")


@pytest.mark.long
def test_mode_report_says_what_brings_it(board: Board) -> None:
    commit = board.change("redis: true", "redis: false\n  reconcile: {mode: report, reason: I look first.}")
    told = board.server.told(commit)
    assert told == [("pending", "shop/production: Only told: I look first. Apply it with `trueup apply`.")]


def test_a_document_that_stalls(board: Board) -> None:
    commit = board.change("fastcgi: true", "fastcgi: perhaps")
    ((state, description),) = board.server.told(commit)
    assert state == "failure"
    assert description.startswith(f"{ENVIRONMENT}: Not used: ")
    correcting = board.change("fastcgi: perhaps", "fastcgi: false")
    assert board.server.told(commit) == [(state, description)], "what a later commit corrects was wrong all the same"
    assert board.server.told(correcting) == [("pending", "1 environment changes.")]


def test_a_platform_document_that_stalls_forgets_nothing(board: Board) -> None:
    text = board.person.read("platform.yaml")
    commit = board.take(board.person.push({"platform.yaml": text.replace("github", "bitbucket")}))
    ((state, description),) = board.server.told(commit)
    assert state == "failure"
    assert description.startswith("platform.yaml: Not used: ")


def test_overtaken_before_it_was_applied(board: Board) -> None:
    first = board.change("fastcgi: true", "fastcgi: false")
    second = board.change("redis: true", "redis: false")
    assert board.server.told(first) == [
        ("pending", "1 environment changes."),
        ("success", "Overtaken by later commits."),
    ]
    assert board.server.told(second) == [("pending", "1 environment changes.")]


def test_what_failed_is_not_made_good_by_what_came_later(board: Board) -> None:
    first = board.change("fastcgi: true", "fastcgi: false")
    board.fail_job(JobErrorCode.NOT_CONVERGED, "It cannot be.")
    board.announcing.work()
    board.change("fastcgi: false", "fastcgi: true")
    board.observe()
    board.announcing.work()
    assert [state for state, _ in board.server.told(first)] == ["pending", "failure"]


@pytest.mark.long
def test_each_merge_of_several_is_told_of(board: Board) -> None:
    one = board.person.replace(ENVIRONMENT, "fastcgi: true", "fastcgi: false")
    two = board.person.push(site_documents("blog"))
    board.server.request(merged_as=one)
    board.server.request(merged_as=two)
    board.take(two)
    board.observe()
    board.announcing.work()
    assert board.server.told(one)[-1] == ("success", "Applied: 1 environment.")
    assert board.server.told(two)[-1] == ("success", "Applied: 1 environment.")
    assert "shop/production" in board.comments(1)[0]
    assert "blog/production" in board.comments(2)[0]


# Held


def test_held_and_put_back(board: Board) -> None:
    start = board.head()
    pushed = board.take(board.person.push(site_documents("blog")))
    board.observe()
    board.announcing.work()
    board.followed.rewind(start)
    assert board.look() == "held"
    board.announcing.work()
    state, description = board.server.told(start)[-1]
    assert state == "failure"
    assert description.startswith("Held, not applied (rolled-back): Upstream went back")
    asked = len(board.server.asked)
    board.look()
    board.announcing.work()
    assert len(board.server.asked) == asked
    board.followed.rewind(pushed)
    assert board.look() == "in-step"
    board.announcing.work()
    assert board.server.told(start)[-1] == ("success", "Nothing to apply.")


def test_unsigned_and_then_signers_no_more(board: Board) -> None:
    board.take(board.platform(allowed_signers=["ada@example.com ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKm0qE5bWbOJ"]))
    commit = board.person.replace(ENVIRONMENT, "fastcgi: true", "fastcgi: false")
    board.server.request(merged_as=commit)
    assert board.look() == "held"
    board.announcing.work()
    ((state, description),) = board.server.told(commit)
    assert (state, description[:30]) == ("failure", "Held, not applied (unsigned): ")
    assert "Not applied" in board.comments()[0]
    # Taken over by somebody who has looked: with the signers gone from the document in force, in this store.
    clone = Clone(board.followed.store, board.person.path.with_name("store-clone"))
    text = clone.read("platform.yaml")
    clone.push({"platform.yaml": "\n".join(line for line in text.splitlines() if "signers" not in line) + "\n"})
    assert board.look() == "in-step"
    board.announcing.work()
    assert board.server.told(commit)[-1] == ("pending", "1 environment changes.")
    board.observe()
    board.announcing.work()
    assert board.server.told(commit)[-1] == ("success", "Applied: 1 environment.")
    assert len(board.comments()) == 1
    assert "**Trueup: Applied.**" in board.comments()[0]


# A forge that is away


@pytest.mark.parametrize("answer", sampled([500, HANG_UP, 502, 401, 404, 302], short=2))
def test_tried_again_with_back_off(board: Board, answer: int) -> None:
    board.server.answers = [answer] * 2
    commit = board.change()
    assert board.server.told(commit) == []
    row = board.row(commit)
    assert row.attempts == 1
    assert row.error
    assert TOKEN not in row.error
    asked = len(board.server.asked)
    board.restart()
    board.announcing.work()
    assert len(board.server.asked) == asked, "not before its time"
    board.pass_time(seconds=waiting(1).total_seconds())
    board.announcing.work()
    assert board.row(commit).attempts == 2
    board.pass_time(seconds=waiting(2).total_seconds())
    board.observe()
    board.announcing.work()
    assert board.server.told(commit) == [("success", "Applied: 1 environment.")], "what holds by now, and only that"
    assert (board.row(commit).attempts, board.row(commit).error) == (0, None)


def test_asked_to_wait_it_waits(board: Board) -> None:
    board.server.answers = [(429, {"Retry-After": "600"})]
    commit = board.change()
    board.pass_time(seconds=300)  # the clock goes on by itself meanwhile
    board.announcing.work()
    assert board.server.told(commit) == []
    board.pass_time(seconds=300)
    board.announcing.work()
    assert len(board.server.told(commit)) == 1


def test_the_wait_grows_to_an_hour() -> None:
    assert [waiting(n) for n in (1, 2, 3)] == [FIRST_WAIT, FIRST_WAIT * 2, FIRST_WAIT * 4]
    assert waiting(500) == LONGEST_WAIT


def test_a_silent_forge_holds_up_nothing_of_the_following(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SILENCE_S", 0.3)
    board.server.answers = [SILENT]
    commit = board.change()
    assert "no answer in time" in str(board.row(commit).error)
    assert board.followed.both() == commit


def test_without_a_secret_it_says_so(board: Board) -> None:
    board.secrets.remove("forge")
    commit = board.change()
    assert "trueup secret set forge" in str(board.row(commit).error)
    board.secrets.put("forge", {"token": TOKEN})
    board.pass_time(minutes=1)
    board.announcing.work()
    assert len(board.server.told(commit)) == 1


def test_where_no_forge_is_declared_nothing_is_kept(board: Board) -> None:
    board.take(board.person.push({"platform.yaml": "apiVersion: trueup/v1\nkind: Platform\n"}))
    commit = board.change()
    board.pass_time(minutes=11)
    board.announcing.work()
    assert board.server.told(commit) == []
    assert board.tools.state.records.announcements.latest() == []


def test_a_crash_between_the_note_and_the_taking_over(board: Board) -> None:
    commit = board.person.replace(ENVIRONMENT, "fastcgi: true", "fastcgi: false")
    board.tools.state.records.announcements.take([commit], board.clock())
    board.announcing.work()
    assert board.server.asked == [], "it is not taken over yet"
    board.take(commit)
    assert board.server.told(commit) == [("pending", "1 environment changes.")]


@pytest.mark.long
def test_a_rewritten_history_that_is_taken_over(board: Board) -> None:
    start = board.head()
    lost = board.change()
    board.followed.rewind(start)
    run_git(board.person.path, "reset", "-q", "--hard", start)
    (board.person.path / "README.md").write_text("Another past.\n")
    run_git(board.person.path, "add", "-A")
    run_git(board.person.path, "commit", "-q", "-m", "Another past")
    run_git(board.person.path, "push", "-q", "origin", "HEAD:main")
    commit = board.head()
    assert board.look() == "held"
    board.announcing.work()
    assert board.server.told(commit)[-1][0] == "failure"
    board.followed.following.take_over(commit)
    board.announcing.work()
    assert board.server.told(commit)[-1] == ("success", "Nothing to apply.")
    assert [state for state, _ in board.server.told(lost)] == ["pending"]
