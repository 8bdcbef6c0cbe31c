"""A folder of a larger repository that is not there, or is no folder, or is not the one that the store was made for."""

from __future__ import annotations

from pathlib import Path

import pytest

from reconciler.core.errors import Conflict, Invalid, UpstreamHeld
from reconciler.home import Home, create
from reconciler.settings import Settings
from reconciler.store.objects import FOLDER as SETTING
from reconciler.store.standing import State
from tests.controlplane import AUTHOR, Clone, ControlPlane, run_git

from .conftest import ADA, Followed, followed_at, fsck
from .larger import (
    DOCUMENTS,
    FOLDER,
    HERE,
    Follow,
    below,
    follow,
    followed,
    forge,
    outside,
    person,
    push_what_lies_there,
)
from .test_held import held, key_of, person_on, platform, sign_with

__all__ = ["follow", "followed", "forge", "person"]

# Held


def test_a_folder_without_documents_never_means_that_all_is_to_go(followed: Followed, person: Clone) -> None:
    person.push({**dict.fromkeys(below(DOCUMENTS)), f"{FOLDER}/README.txt": "gone\n"})
    held(followed, "empty", FOLDER, "Revert")
    with pytest.raises(UpstreamHeld, match="no documents"):
        followed.following.take_over(run_git(person.path, "rev-parse", "HEAD"))
    run_git(person.path, "revert", "--no-edit", "HEAD")
    run_git(person.path, "push", "-q", "origin", "HEAD:main")
    assert followed.following.look().state is State.IN_STEP
    assert "shop/production" in followed.fleet.environments_by_key


@pytest.mark.parametrize("what", ["file", "symbolic link", "moved"])
def test_a_folder_that_is_none_any_more(followed: Followed, person: Clone, what: str) -> None:
    run_git(person.path, "mv", FOLDER, "moved")
    if what == "file":
        (person.path / FOLDER).write_text("x\n")
    elif what == "symbolic link":
        (person.path / FOLDER).symlink_to("../moved")
    push_what_lies_there(person)
    held(followed, "empty", FOLDER, f"{FOLDER} as a {what}" if what != "moved" else "no documents in")
    assert "shop/production" in followed.fleet.environments_by_key


def test_rewritten_and_rolled_back(followed: Followed, person: Clone) -> None:
    start = followed.both()
    pushed = person.push({"app/main.c": "x\n"})
    followed.following.look()
    followed.rewind(start)
    held(followed, "rolled-back", pushed[:12])
    rewritten = person_on(person, start, {"README.md": "another past\n"})
    job = followed.set_cache(redis=False)
    held(followed, "rewritten", rewritten)
    assert followed.following.take_over(rewritten).state is State.IN_STEP
    assert followed.job(job).revision == followed.both()
    assert followed.remote("rev-parse", "main~1") == rewritten


def test_signatures_are_asked_of_what_changes_the_folder(followed: Followed, person: Clone, tmp_path: Path) -> None:
    key, line = key_of("ada", tmp_path)
    sign_with(person, key)
    person.push({f"{FOLDER}/platform.yaml": platform(line)})
    assert followed.following.look().state is State.IN_STEP
    sign_with(person, None)
    person.push({"app/main.c": "not ours to judge\n"})
    assert followed.following.look().state is State.IN_STEP
    base = followed.both()
    sign_with(person, key)
    person.replace(HERE, "redis: true", "redis: false")
    assert followed.following.look().state is State.IN_STEP
    # A merge that changes no file of the folder by itself, and yet takes back what was signed.
    run_git(person.path, "checkout", "-q", "-b", "old", base)
    sign_with(person, None)
    (person.path / "app/more.c").write_text("more\n")
    run_git(person.path, "add", "-A")
    run_git(person.path, "commit", "-q", "-m", "More")
    signed = followed.remote("rev-parse", "main")
    run_git(person.path, "merge", "-q", "-s", "ours", "--no-edit", signed)
    run_git(person.path, "push", "-q", "origin", "HEAD:main")
    held(followed, "unsigned", "1 commits", "allowed_signers")
    followed.rewind(signed)
    assert followed.following.look().state is State.IN_STEP
    # One that brings somebody's older branch together with it, as others do all day.
    run_git(person.path, "checkout", "-q", "-B", "older", f"{base}")
    (person.path / "app/older.c").write_text("older\n")
    run_git(person.path, "add", "-A")
    run_git(person.path, "commit", "-q", "-m", "Older")
    run_git(person.path, "checkout", "-q", "-B", "main", signed)
    run_git(person.path, "merge", "-q", "--no-ff", "--no-edit", "older")
    run_git(person.path, "push", "-q", "origin", "HEAD:main")
    assert followed.following.look().state is State.IN_STEP
    signed = followed.both()
    # And the plain case.
    run_git(person.path, "checkout", "-q", "-B", "main", signed)
    person.push({HERE: person.read(HERE) + "# unsigned\n"})
    held(followed, "unsigned", "1 commits")


# The first look


def test_a_folder_that_is_not_there_yet_is_made_on_somebodys_word(follow: Follow, person: Clone, forge: Path) -> None:
    followed, there = follow(), run_git(forge, "rev-parse", "main")
    held(followed, "folder-missing", FOLDER, "TRUEUP_UPSTREAM_PATH", f"trueup upstream accept {there}")
    before = outside(forge)
    assert followed.following.take_over(there).state is State.IN_STEP
    followed.both()
    assert followed.remote("rev-parse", "main~1") == there
    assert outside(forge) == before
    assert "kind: Platform" in person.read(f"{FOLDER}/platform.yaml")
    assert (person.path / FOLDER / "schemas" / "node.json").is_file()
    person.push(below(DOCUMENTS))
    assert followed.following.look().state is State.IN_STEP
    assert "shop/production" in followed.fleet.environments_by_key
    fsck(forge)


def test_and_all_that_was_committed_here_before_goes_there(
    follow: Follow, person: Clone, forge: Path, tmp_path: Path
) -> None:
    followed, there = follow(), run_git(forge, "rev-parse", "main")
    Clone(followed.store, tmp_path / "operator").push(below(DOCUMENTS))
    jobs = [followed.home.operations.create_site("Mine", "blog", ADA), followed.set_cache(redis=False)]
    held(followed, "folder-missing")
    assert followed.following.take_over(there).state is State.IN_STEP
    assert [followed.job(job).revision for job in jobs][-1] == followed.both()
    assert followed.following.upstream.dropped() == []
    assert set(followed.fleet.environments_by_key) == {"shop/production", "blog/production"}
    assert "redis: false" in person.read(HERE)
    assert person.read("README.md") == "All that we have\n"


def test_so_is_one_that_has_no_documents_yet(follow: Follow, person: Clone) -> None:
    there = person.push({f"{FOLDER}/notes.txt": "soon\n"})
    followed = follow()
    held(followed, "empty", f"trueup upstream accept {there}")
    assert followed.following.take_over(there).state is State.IN_STEP
    assert person.read(f"{FOLDER}/notes.txt") == "soon\n"
    assert "kind: Platform" in person.read(f"{FOLDER}/platform.yaml")


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("app/main.c", "app/main.c as a file"),
        ("app/main.c/store", "app/main.c as a file"),
        ("app/link", "app/link as a symbolic link"),
        ("app/link/store", "app/link as a symbolic link"),
    ],
)
def test_what_is_no_folder_there_is_never_made_one(follow: Follow, forge: Path, folder: str, found: str) -> None:
    followed, there = follow(folder), run_git(forge, "rev-parse", "main")
    held(followed, "folder-missing", found, "TRUEUP_UPSTREAM_PATH")
    with pytest.raises(UpstreamHeld, match=found):
        followed.following.take_over(there)
    assert run_git(forge, "rev-parse", "main") == there


# What is no path, and what is another one


@pytest.mark.parametrize(
    "path", ["", "/", "/hosting", "hosting/", "a//b", "..", "a/../b", ".git", "a/.b", "a b", "-x", "ä"]
)
def test_what_can_be_no_path_is_refused(tmp_path: Path, path: str) -> None:
    settings = Settings(home=tmp_path / "home", upstream_path=path)
    with pytest.raises(Invalid, match="TRUEUP_UPSTREAM_PATH"):
        create(settings, AUTHOR)
    assert not settings.store.exists()
    create(Settings(home=settings.home), AUTHOR)
    with pytest.raises(Invalid, match="TRUEUP_UPSTREAM_PATH"):
        Home.open(settings)


def test_a_store_in_use_keeps_its_path(followed: Followed) -> None:
    settings, head = followed.home.settings, followed.both()
    for other in ("elsewhere", None):
        with pytest.raises(Conflict, match=f"TRUEUP_UPSTREAM_PATH={FOLDER}.*no commit that waits.*trueup init"):
            Home.open(settings.model_copy(update={"upstream_path": other}))
    with Home.open(Settings(home=settings.home)) as home:  # a command that knows nothing of upstream
        assert home.state.repository.folder == FOLDER
        assert home.state.repository.head() == head


def test_the_way_to_another_path_that_the_refusal_names(followed: Followed, person: Clone) -> None:
    environment = followed.environment()
    run_git(person.path, "mv", FOLDER, "wordpress")
    push_what_lies_there(person)
    followed.home.close()
    followed.store.rename(followed.store.with_suffix(".old"))
    settings = followed.home.settings.model_copy(update={"upstream_path": "wordpress"})
    create(settings, AUTHOR)
    again = followed_at(settings.home, followed.forge, upstream_path="wordpress")
    try:
        assert again.following.look().state is State.IN_STEP
        assert again.environment("shop/production") == environment
    finally:
        again.home.close()


def test_a_store_that_nobody_has_written_in_moves(forge: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    create(settings, AUTHOR)
    for folder in (FOLDER, "elsewhere", None, FOLDER):
        wanted = settings.model_copy(update={"upstream": f"file://{forge}", "upstream_path": folder})
        with Home.open(wanted) as home:
            assert home.state.repository.folder == (folder or "")
            assert set(home.state.repository.read().documents) == {"platform.yaml"}
            names = run_git(settings.store, "ls-tree", "-r", "--name-only", "main").split()
            assert all(name.startswith(f"{folder}/") for name in names) or folder is None
            assert run_git(settings.store, "rev-list", "--count", "main") == "1"
    fsck(settings.store)


def test_killed_while_it_moves_it_moves_the_next_time(forge: Path, tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    create(settings, AUTHOR)
    wanted = settings.model_copy(update={"upstream": f"file://{forge}", "upstream_path": FOLDER})
    Home.open(wanted).close()
    run_git(settings.store, "config", "--unset", SETTING)
    with Home.open(wanted) as home:
        assert set(home.state.repository.read().documents) == {"platform.yaml"}
        assert home.state.repository.folder == FOLDER


# init --from


@pytest.mark.long
def test_a_lost_home_comes_back_from_its_folder(followed: Followed, tmp_path: Path) -> None:
    plane, begin = ControlPlane(tmp_path / "new"), ("init", "--from", f"file://{followed.forge}")
    followed.set_cache(redis=False)
    followed.following.look()
    head = followed.both()
    for path, why in (("app", "has no documents"), ("/x", "--path"), ("app/main.c", "has no documents")):
        assert why in plane.refused(*begin, "--path", path)
        assert not plane.store.exists()
    # At the top there is a platform.yaml, too, of somebody else.
    told = plane.command(*begin, "--path", FOLDER).stdout
    assert f"from file://{followed.forge} (main, {FOLDER}) at {head}" in told
    assert "Documents: 1 nodes, 1 sites, 0 stalled" in told
    wanted = f"TRUEUP_UPSTREAM=file://{followed.forge} TRUEUP_UPSTREAM_BRANCH=main TRUEUP_UPSTREAM_PATH={FOLDER}"
    assert wanted in told
    again = followed_at(plane.home, followed.forge, upstream_path=FOLDER)
    try:
        again.set_cache(fastcgi=False)
        assert again.following.look().state is State.IN_STEP
        assert "fastcgi: false" in followed.remote("show", f"main:{HERE}")
    finally:
        again.home.close()
    assert "go with --from" in plane.refused("init", "--path", "x")
