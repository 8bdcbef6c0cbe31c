"""Each forge in its own shape, against a server that keeps state and refuses as the real one does."""

from __future__ import annotations

from pathlib import Path

import certifi
import pytest
from pydantic import ValidationError

from reconciler.core.announcing import CommitState
from reconciler.core.errors import Invalid, NotFound
from reconciler.core.forge import Forge as Declared
from reconciler.forges import client as http
from reconciler.forges.model import Forge, ForgeError
from reconciler.forges.opening import forge_of
from reconciler.storage.secret_store import Secrets
from tests.forges.server import DRIP, ENDLESS, HANG_UP, NOT_JSON, SILENT, TOKEN, ForgeServer

COMMIT, OTHER = "a" * 40, "b" * 40
MARKER = f"<!-- trueup {COMMIT} -->"
FAILED = {"github": "failure", "gitea": "failure", "gitlab": "failed"}


def test_a_status_stands_under_one_name_and_leads_somewhere(server: ForgeServer, client: Forge) -> None:
    client.set_status(COMMIT, CommitState.PENDING, "2 environments change.", "https://trueup.example.com")
    client.set_status(COMMIT, CommitState.FAILURE, "acme/production: Blocked.", None)
    first, second = server.statuses[COMMIT]
    assert first.get("context", first.get("name")) == second.get("context", second.get("name")) == "trueup"
    assert (first["state"], first["description"]) == ("pending", "2 environments change.")
    assert (first["target_url"], "target_url" in second) == ("https://trueup.example.com", False)
    assert second["state"] == FAILED[server.kind]
    assert {asked.headers["content-type"] for asked in server.asked} == {"application/json"}


def test_the_same_status_twice_is_no_error(server: ForgeServer, client: Forge) -> None:
    for _ in range(2):
        client.set_status(COMMIT, CommitState.PENDING, "1 environment changes.", None)
    assert set(server.told(COMMIT)) == {("pending", "1 environment changes.")}


def test_a_long_description_is_cut(server: ForgeServer, client: Forge) -> None:
    client.set_status(COMMIT, CommitState.FAILURE, "why\n" * 200, None)
    ((_, description),) = server.told(COMMIT)
    assert description.endswith("…")
    assert len(description) == (140 if server.kind == "github" else 255)


def test_a_commit_that_it_does_not_have_is_an_error_with_its_reason(server: ForgeServer, client: Forge) -> None:
    server.unknown.add(COMMIT)
    with pytest.raises(ForgeError, match=r"422 \(No commit found for SHA") as caught:
        client.set_status(COMMIT, CommitState.SUCCESS, "Applied.", None)
    assert caught.value.status == 422


def test_the_request_is_the_one_whose_merge_made_the_commit(server: ForgeServer, client: Forge) -> None:
    server.request("open")
    server.request("merged", merged_as=COMMIT)
    assert client.request_of(COMMIT) == 2
    assert client.request_of(OTHER) is None


def test_a_comment_is_made_once_and_then_changed(server: ForgeServer, client: Forge) -> None:
    request = server.request(merged_as=COMMIT)
    # More than a page of others' come before it.
    request.comments += [{"id": id_, "body": f"> {MARKER}\nquoted"} for id_ in range(1, 72)]
    client.comment(1, MARKER, "first")
    client.comment(1, MARKER, "first")
    own = [one["body"] for one in request.comments if one["body"].startswith(MARKER)]
    assert own == [f"{MARKER}\nfirst"]
    client.comment(1, MARKER, "second")
    assert [one["body"] for one in request.comments if one["body"].startswith(MARKER)] == [f"{MARKER}\nsecond"]
    assert [asked.method for asked in server.asked if asked.body] == [
        "POST",
        "PUT" if server.kind == "gitlab" else "PATCH",
    ]


def test_somebody_elses_comment_with_our_line_is_left_alone(server: ForgeServer, client: Forge) -> None:
    request = server.request(merged_as=COMMIT)
    request.comments.append({"id": 7, "body": f"{MARKER}\nforged"})
    server.foreign.add(7)
    client.comment(1, MARKER, "ours")
    assert [one["body"] for one in request.comments] == [f"{MARKER}\nforged", f"{MARKER}\nours"]


def test_a_request_is_opened_once(server: ForgeServer, client: Forge) -> None:
    server.request("another")
    address = client.open_request("trueup/adopt-acme-production-1234", "main", "Adopt", "Why")
    assert address == f"{server.url}/acme/store/pulls/2"
    assert client.open_request("trueup/adopt-acme-production-1234", "main", "Adopt", "Why") == address
    made = server.requests[1]
    assert (made.branch, made.base, made.title, made.body) == (
        "trueup/adopt-acme-production-1234",
        "main",
        "Adopt",
        "Why",
    )
    assert len(server.requests) == 2


@pytest.mark.parametrize("answer", [401, 403, 404, 422, 500, 502, 503])
def test_a_refusal_says_what_was_asked_and_never_the_token(server: ForgeServer, client: Forge, answer: int) -> None:
    server.answers = [answer]
    with pytest.raises(ForgeError) as caught:
        client.set_status(COMMIT, CommitState.SUCCESS, "Applied.", None)
    assert caught.value.status == answer
    assert f"answered {answer} (told to)" in str(caught.value)
    assert TOKEN not in str(caught.value)
    client.set_status(COMMIT, CommitState.SUCCESS, "Applied.", None)


def test_a_token_that_is_wrong(server: ForgeServer, client: Forge) -> None:
    """The server repeats the header that it was sent."""
    server.token = "another"
    with pytest.raises(ForgeError, match="a token that is valid") as caught:
        client.set_status(COMMIT, CommitState.SUCCESS, "Applied.", None)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(("said", "expected"), [("7", 7), ("999999", 3600), ("soon", None), (None, None)])
def test_asked_to_wait(server: ForgeServer, client: Forge, said: str | None, expected: float | None) -> None:
    server.answers = [(429, {"Retry-After": said} if said else {})]
    with pytest.raises(ForgeError, match="left alone") as caught:
        client.set_status(COMMIT, CommitState.SUCCESS, "Applied.", None)
    assert (caught.value.status, caught.value.wait_s) == (429, expected)


@pytest.mark.parametrize("answer", [301, 302, 303, 307, 308])
def test_the_token_is_not_sent_on(server: ForgeServer, client: Forge, answer: int) -> None:
    server.answers = [answer]
    with pytest.raises(ForgeError, match="redirected"):
        client.set_status(COMMIT, CommitState.SUCCESS, "Applied.", None)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "silence_s", "words"), [(SILENT, 0.3, "no answer in time"), (DRIP, 60.0, "did not answer within 1 s")]
)
def test_a_forge_that_takes_its_time(
    server: ForgeServer, client: Forge, monkeypatch: pytest.MonkeyPatch, answer: int, silence_s: float, words: str
) -> None:
    monkeypatch.setattr(http, "SILENCE_S", silence_s)
    monkeypatch.setattr(http, "LONGEST_S", 1.0)
    server.answers = [answer]
    with pytest.raises(ForgeError, match=words):
        client.set_status(COMMIT, CommitState.SUCCESS, "Applied.", None)


@pytest.mark.parametrize(
    ("answer", "words"), [(HANG_UP, "cannot be asked"), (ENDLESS, "more than"), (NOT_JSON, "not answer with JSON")]
)
def test_what_is_no_answer(
    server: ForgeServer, client: Forge, monkeypatch: pytest.MonkeyPatch, answer: int, words: str
) -> None:
    monkeypatch.setattr(http, "MOST_BYTES", 1 << 20)
    server.answers = [answer]
    with pytest.raises(ForgeError, match=words):
        client.set_status(COMMIT, CommitState.SUCCESS, "Applied.", None)


def test_nobody_there(server: ForgeServer, tmp_path: Path) -> None:
    secrets = Secrets(tmp_path / "secrets")
    declared = Declared.model_validate({**server.declared(), "api": "http://127.0.0.1:1"})
    with pytest.raises(NotFound, match="trueup secret set forge"):
        forge_of(declared, secrets)
    secrets.put("forge", {"key": "x"})
    with pytest.raises(Invalid, match="no `token`"):
        forge_of(declared, secrets)
    secrets.put("forge", {"token": "two words"})
    with pytest.raises(Invalid, match="no `token`"):
        forge_of(declared, secrets)
    secrets.put("forge", {"token": TOKEN})
    with pytest.raises(ForgeError, match="cannot be asked") as caught:
        forge_of(declared, secrets).set_status(COMMIT, CommitState.SUCCESS, "Applied.", None)
    assert caught.value.status is None


@pytest.mark.parametrize("api", ["https://api.github.com", "http://localhost:3000/api/v1", "http://[::1]:3000"])
def test_where_a_token_may_go(api: str) -> None:
    assert Declared(kind="github", api=api, repository="acme/store").api == api


@pytest.mark.parametrize(
    "wrong",
    [
        {"api": "http://git.example.com/api/v1"},
        {"api": "http://10.0.0.5/api/v1"},
        {"api": "http://localhost.example.com"},
        {"api": "https://user:pass@git.example.com"},
        {"api": "https://git.example.com/api?x=1"},
        {"repository": "acme"},
        {"repository": "acme/../store"},
        {"repository": "acme/group/store"},
        {"repository": "acme/store?x"},
        {"kind": "bitbucket"},
    ],
)
def test_what_is_no_forge(wrong: dict[str, str]) -> None:
    good = {"kind": "github", "api": "https://api.github.com", "repository": "acme/store"}
    Declared.model_validate(good)
    with pytest.raises(ValidationError):
        Declared.model_validate({**good, **wrong})


def test_gitlab_has_groups_in_groups() -> None:
    assert Declared(kind="gitlab", api="https://gitlab.com/api/v4", repository="a/b/c").repository == "a/b/c"


def test_the_authorities_of_this_host_are_read_once_and_again_when_they_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorities = Path(certifi.where()).read_text().split("\n\n")
    here = tmp_path / "authorities.pem"
    monkeypatch.setenv("SSL_CERT_FILE", str(here))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    for count in (1, 2):
        fresh = tmp_path / "fresh.pem"
        fresh.write_text("\n\n".join(authorities[:count]))
        fresh.rename(here)
        found = http.trusted(None)
        assert found is http.trusted(None)
        assert len(found.get_ca_certs()) == count
    assert len(http.trusted(authorities[2]).get_ca_certs()) == 1
