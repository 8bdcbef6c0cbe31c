"""What upstream has and what is not applied: nothing changes here, and it is said loudly what to do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from reconciler.core.errors import Conflict, UpstreamHeld
from reconciler.store.repository import Author, Repository
from reconciler.store.standing import State
from tests.controlplane import Clone, run_git, site_documents

from .conftest import ENVIRONMENT, Followed, Make, followed_at


def held(followed: Followed, reason: str, *words: str) -> None:
    """A look applies nothing and pushes nothing, and says why."""
    here, there = followed.local("rev-parse", "main"), followed.remote("for-each-ref", "--format=%(objectname)")
    accepted = followed.following.upstream.accepted()
    found = followed.following.look()
    assert (found.state, found.reason) == (State.HELD, reason)
    for word in words:
        assert word in found.message
    assert followed.local("rev-parse", "main") == here
    assert followed.remote("for-each-ref", "--format=%(objectname)") == there
    assert followed.following.upstream.accepted() == accepted
    again = followed.following.look()
    assert (again.since, again.reason) == (found.since, reason)


def test_a_rewritten_history(followed: Followed, person: Clone) -> None:
    start = followed.both()
    pushed = person.push(site_documents("blog"))
    followed.following.look()
    followed.rewind(start)
    rewritten = person_on(person, start, {"README.txt": "another past\n"})
    job = followed.set_cache(redis=False)
    held(followed, "rewritten", pushed[:12], f"trueup upstream accept {rewritten}")
    # Somebody puts back what was there: what waited here goes on.
    followed.rewind(pushed)
    assert followed.following.look().state is State.IN_STEP
    assert followed.job(job).revision == followed.both()
    assert "blog/production" in followed.fleet.environments_by_key


def person_on(person: Clone, commit: str, files: dict[str, str]) -> str:
    """Somebody's push from an older commit."""
    run_git(person.path, "fetch", "-q", "origin")
    run_git(person.path, "reset", "-q", "--hard", commit)
    for name, text in files.items():
        (person.path / name).write_text(text)
    run_git(person.path, "add", "-A")
    run_git(person.path, "commit", "-q", "-m", "From an older commit")
    run_git(person.path, "push", "-q", "origin", "HEAD:main")
    return run_git(person.path, "rev-parse", "HEAD")


def test_a_rewritten_history_that_is_taken_over(followed: Followed, person: Clone) -> None:
    start = followed.both()
    person.push(site_documents("blog"))
    followed.following.look()
    job = followed.set_cache(redis=False)
    followed.rewind(start)
    rewritten = person_on(person, start, {"README.txt": "another past\n"})
    held(followed, "rewritten")
    with pytest.raises(Conflict, match=rewritten):
        followed.following.take_over(start)
    assert followed.following.take_over(rewritten).state is State.IN_STEP
    assert followed.job(job).revision == followed.both()
    assert set(followed.fleet.environments_by_key) == {"shop/production"}
    assert "redis: false" in followed.document()
    assert followed.remote("rev-parse", "main~1") == rewritten


def test_a_roll_back(followed: Followed, person: Clone) -> None:
    start = followed.both()
    pushed = person.push(site_documents("blog"))
    followed.following.look()
    followed.rewind(start)
    held(followed, "rolled-back", pushed[:12], start)
    assert "blog/production" in followed.fleet.environments_by_key
    assert followed.following.take_over(start).state is State.IN_STEP
    assert followed.both() == start


def test_a_roll_back_of_our_own_commits(followed: Followed) -> None:
    start = followed.both()
    followed.set_cache(redis=False)
    followed.following.look()
    followed.rewind(start)
    held(followed, "rolled-back")


def test_a_branch_that_is_gone(followed: Followed) -> None:
    followed.remote("update-ref", "-d", "refs/heads/main")
    held(followed, "branch-missing", "TRUEUP_UPSTREAM_BRANCH")


def test_a_branch_of_another_name(make: Make) -> None:
    """A repository that has documents on another branch is not one to be filled."""
    followed = make()
    followed.remote("fetch", "-q", str(followed.store), "main:master")
    held(followed, "branch-missing", "master", "TRUEUP_UPSTREAM_BRANCH")
    other = followed_at(followed.home.settings.home, followed.forge, upstream_branch="master")
    try:
        assert other.following.look().state is State.IN_STEP
    finally:
        other.home.close()


def test_an_upstream_without_documents(followed: Followed, person: Clone) -> None:
    files = run_git(person.path, "ls-files").split("\n")
    person.push({**dict.fromkeys(files), "README.txt": "all gone\n"})
    held(followed, "empty", "Revert")
    head = run_git(person.path, "rev-parse", "HEAD")
    with pytest.raises(UpstreamHeld, match="no documents"):
        followed.following.take_over(head)
    run_git(person.path, "revert", "--no-edit", "HEAD")
    run_git(person.path, "push", "-q", "origin", "HEAD:main")
    assert followed.following.look().state is State.IN_STEP
    assert "shop/production" in followed.fleet.environments_by_key


def test_a_repository_of_something_else(make: Make, tmp_path: Path) -> None:
    followed = make()  # its documents came with its only commit, and are no less worth for that
    other = tmp_path / "other"
    Repository.init(other, {"platform.yaml": b"kind: Platform\n"}, Author("T", "t@example.com")).close()
    followed.remote("fetch", "-q", str(other), "main:main")
    held(followed, "unrelated", "history in common")


def test_a_forge_that_does_not_take_our_push(followed: Followed) -> None:
    hook = followed.forge / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nprintf 'main is \\033[31mprotected\\n' >&2\nexit 1\n")
    hook.chmod(0o755)
    job = followed.set_cache(redis=False)
    found = followed.following.look()
    assert found.state is State.REFUSED
    assert "main is ?[31mprotected" in found.message
    assert not followed.following.is_behind()
    hook.unlink()
    assert followed.following.look().state is State.IN_STEP
    assert followed.job(job).revision == followed.both()


# Signatures


def key_of(name: str, directory: Path) -> tuple[Path, str]:
    """A key, and the line that lets it sign."""
    path = directory / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)], check=True)
    return path, f"{name}@example.com {path.with_suffix('.pub').read_text().strip()}"


def sign_with(person: Clone, key: Path | None) -> None:
    run_git(person.path, "config", "gpg.format", "ssh")
    run_git(person.path, "config", "user.signingkey", str(key))
    run_git(person.path, "config", "commit.gpgsign", "true" if key else "false")


@pytest.fixture
def guarded(make: Make, tmp_path: Path) -> tuple[Followed, Clone, Path]:
    """A store whose platform document lets one key sign."""
    key, line = key_of("ada", tmp_path)
    followed = make({"platform.yaml": platform(line)})
    assert followed.following.look().state is State.IN_STEP
    return followed, Clone(followed.forge, tmp_path / "clone"), key


def platform(*signers: str) -> str:
    listed = "".join(f"    - {signer}\n" for signer in signers)
    spec = f"spec:\n  allowed_signers:\n{listed}" if signers else "spec: {}\n"
    return f"apiVersion: trueup/v1\nkind: Platform\n{spec}"


def test_what_is_signed_is_taken_over(guarded: tuple[Followed, Clone, Path]) -> None:
    followed, person, key = guarded
    sign_with(person, key)
    job = followed.set_cache(fastcgi=False)  # our own commit has no signature, and needs none
    person.replace(ENVIRONMENT, "redis: true", "redis: false")
    assert followed.following.look().state is State.IN_STEP
    assert followed.job(job).revision == followed.both()
    assert followed.following.look().state is State.IN_STEP


@pytest.mark.parametrize("position", ["first", "last"])
def test_one_unsigned_commit_holds_all(guarded: tuple[Followed, Clone, Path], position: str) -> None:
    followed, person, key = guarded
    for number in range(2):
        sign_with(person, None if (number == 0) == (position == "first") else key)
        person.push({f"{number}.txt": "x\n"})
    held(followed, "unsigned", "1 commits", "allowed_signers")


def test_a_signature_of_somebody_else(guarded: tuple[Followed, Clone, Path], tmp_path: Path) -> None:
    followed, person, _ = guarded
    key, line = key_of("eve", tmp_path)
    sign_with(person, key)
    # Not even the commit that lets its own key sign: what is in force counts, not what comes in.
    person.push({"platform.yaml": platform(line)})
    held(followed, "unsigned")


def test_a_signature_that_was_made_for_something_else(guarded: tuple[Followed, Clone, Path]) -> None:
    followed, person, key = guarded
    sign_with(person, key)
    person.push({"a.txt": "a\n"})
    # The same signature over another tree.
    raw = run_git(person.path, "cat-file", "commit", "HEAD") + "\n"
    tree = run_git(person.path, "rev-parse", "HEAD~1^{tree}")
    forged = raw.replace(raw.split()[1], tree, 1)
    made = subprocess.run(
        ["git", "-C", str(person.path), "hash-object", "-t", "commit", "-w", "--stdin"],
        input=forged.encode(),
        capture_output=True,
        check=True,
    ).stdout.decode()
    run_git(person.path, "push", "-q", "-f", "origin", f"{made.strip()}:refs/heads/main")
    held(followed, "unsigned")


def test_signers_change_by_a_signed_commit(guarded: tuple[Followed, Clone, Path], tmp_path: Path) -> None:
    followed, person, key = guarded
    sign_with(person, key)
    other, line = key_of("grace", tmp_path)
    person.push({"platform.yaml": platform(line)})
    assert followed.following.look().state is State.IN_STEP
    person.push({"a.txt": "a\n"})
    held(followed, "unsigned")
    followed.rewind(followed.local("rev-parse", "main"))
    run_git(person.path, "fetch", "-q", "origin")
    run_git(person.path, "reset", "-q", "--hard", "origin/main")
    sign_with(person, other)
    person.push({"a.txt": "a\n"})
    assert followed.following.look().state is State.IN_STEP


def test_a_broken_platform_document_lets_nobody_in(guarded: tuple[Followed, Clone, Path]) -> None:
    followed, person, key = guarded
    sign_with(person, key)
    for number in range(8):
        person.push({"platform.yaml": f"{{ broken: [{number}"})
    assert followed.following.look().state is State.IN_STEP
    # As after a restart: nothing is remembered of what was read before.
    fresh = followed_at(followed.home.settings.home, followed.forge)
    try:
        sign_with(person, None)
        person.push({"a.txt": "a\n"})
        held(fresh, "unsigned")
    finally:
        fresh.home.close()
