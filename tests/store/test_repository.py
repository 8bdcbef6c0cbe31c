"""Reading and writing a real bare repository, with people pushing to it."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from reconciler.core.entries import Document, Stalled
from reconciler.core.errors import Conflict, Invalid, NotFound, StoreError
from reconciler.core.intents import Edit
from reconciler.store.repository import Author, Repository, Snapshot

from .conftest import ADA, ENVIRONMENT, PATH, SITE, create, fsck, push, run_git, switch


def show(store: Repository, path: str, revision: str = "main") -> bytes:
    argv = ["git", "-C", str(store.path), "show", f"{revision}:{path}"]
    return subprocess.run(argv, capture_output=True, check=True).stdout


def test_a_new_store_holds_what_it_was_given(store: Repository) -> None:
    snapshot = store.read()
    assert snapshot.revision == store.head() == run_git(store.path, "rev-parse", "main")
    assert set(snapshot.documents) == {"sites/acme/site.yaml", PATH}
    assert show(store, PATH) == ENVIRONMENT
    assert run_git(store.path, "config", "receive.denyNonFastForwards") == "true"
    fsck(store.path)


def test_a_store_is_not_made_over_something(store: Repository, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="exists"):
        Repository.init(store.path, {}, ADA)
    assert [path.name for path in tmp_path.iterdir()] == ["store.git"]


def test_what_is_no_store_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="trueup init"):
        Repository(tmp_path)
    with pytest.raises(StoreError, match="trueup init"):
        Repository(tmp_path / "absent")


def test_a_commit_changes_its_line_and_says_who_and_why(store: Repository) -> None:
    before = store.read()
    commit = store.commit(switch(PATH, "fastcgi", False), ADA, job="7f1c6f0e-51ad")
    assert commit.paths == {PATH}
    assert store.head() == commit.revision
    assert show(store, PATH) == ENVIRONMENT.replace(b"fastcgi: true ", b"fastcgi: false ")
    assert run_git(store.path, "log", "-1", "--format=%P|%an|%ae|%cn|%B", "main") == (
        f"{before.revision}|Ada Lovelace|ada@example.com|Trueup|Switch fastcgi for {PATH}\n\nTrueup-Job: 7f1c6f0e-51ad"
    )
    after = store.read()
    assert after.changed_since(before) == {PATH}
    assert after.documents["sites/acme/site.yaml"] is before.documents["sites/acme/site.yaml"]
    fsck(store.path)


def test_an_edit_that_changes_nothing_is_one_commit_too(store: Repository) -> None:
    before = store.head()
    commit = store.commit(switch(PATH, "fastcgi", True), ADA, job="j1")
    assert commit.paths == frozenset()
    assert run_git(store.path, "rev-list", f"{before}..main") == commit.revision
    assert store.jobs_in_history(["j1", "j2"]) == {"j1": commit.revision}


def test_made_documents_read_back_and_are_not_made_twice(store: Repository) -> None:
    path = "sites/other/site.yaml"
    store.commit(create(path, "{{ lookup('pipe', 'id') }}"), ADA)
    document = store.read().documents[path]
    assert isinstance(document, Document)
    assert document.data["metadata"]["name"] == "{{ lookup('pipe', 'id') }}"  # type: ignore[index,call-overload]
    assert show(store, path).startswith(b"# yaml-language-server: $schema=../../schemas/site.json\n")
    head = store.head()
    with pytest.raises(Conflict, match="exists"):
        store.commit(create(path, "Again"), ADA)
    assert store.head() == head


@pytest.mark.parametrize(
    "path", ["../x.yaml", "/x.yaml", "-x.yaml", ".git/x.yaml", "a//b.yaml", "a\nb.yaml", "a b.yaml"]
)
def test_paths_that_could_mean_more_are_refused(store: Repository, path: str) -> None:
    with pytest.raises(Invalid, match="no path"):
        store.commit(create(path, "x"), ADA)
    fsck(store.path)


def test_names_and_messages_cannot_forge_a_header_or_a_trailer(store: Repository) -> None:
    author = Author("Eve\ncommitter Root <root@x> 0 +0000\n", "e<ve>@x\n.com")
    message = "Say\0 x\n\nTrueup-Job: stolen\n trueup-job: stolen"
    commit = store.commit(lambda _snapshot: Edit(message), author, job="mine")
    assert store.jobs_in_history(["stolen", "mine"]) == {"mine": commit.revision}
    shown = run_git(store.path, "log", "-1", "--format=%an|%ae|%cn", "main")
    assert shown == "Eve committer Root root@x 0 +0000|eve@x.com|Trueup"
    nameless = store.commit(lambda _snapshot: Edit(""), Author("", ""))
    assert store.head() == nameless.revision
    with pytest.raises(Invalid, match="job id"):
        store.commit(lambda _snapshot: Edit("x"), ADA, job="a\nb")
    fsck(store.path)


def test_a_document_that_is_gone_or_stalled_conflicts(store: Repository, clone: Path) -> None:
    with pytest.raises(Conflict, match="not in the store"):
        store.commit(switch("sites/none/site.yaml", "redis", False), ADA)
    head = push(clone, {PATH: ENVIRONMENT + b"metadata: 1\n"})
    with pytest.raises(Conflict, match=rf"{PATH}:16:1: key `metadata` is here twice.*Correct the document first"):
        store.commit(switch(PATH, "redis", False), ADA)
    assert store.head() == head


def test_what_evaluate_raises_goes_to_its_own_caller(store: Repository) -> None:
    def broken(_snapshot: Snapshot) -> Edit:
        raise KeyError("a bug")

    barrier = threading.Barrier(20)

    def one(number: int) -> str:
        barrier.wait()
        try:
            store.commit(broken if number % 4 == 0 else switch(PATH, f"n{number}", number), ADA)
        except KeyError:
            return "bug"
        return "fine"

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(one, range(20)))
    assert results == ["bug" if number % 4 == 0 else "fine" for number in range(20)]
    assert run_git(store.path, "rev-list", "--count", "main") == "16"


def test_one_slug_is_given_to_one_of_many(store: Repository) -> None:
    barrier = threading.Barrier(12)

    def one(number: int) -> bool:
        barrier.wait()
        try:
            store.commit(create("sites/new/site.yaml", f"n{number}"), ADA)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(12) as pool:
        assert sum(pool.map(one, range(12))) == 1


def test_200_edits_at_once_lose_nothing(make: Callable[..., Repository]) -> None:
    paths = [f"sites/s{number}/environments/production.yaml" for number in range(50)]
    store = make(dict.fromkeys(paths, ENVIRONMENT))
    barrier = threading.Barrier(200)

    def one(number: int) -> str:
        barrier.wait()
        return store.commit(switch(paths[number % 50], f"k{number // 50}", number), ADA, job=f"job-{number}").revision

    with ThreadPoolExecutor(200) as pool:
        revisions = list(pool.map(one, range(200)))
    assert len(set(revisions)) == 200
    assert run_git(store.path, "rev-list", "--count", "main") == "201"
    assert run_git(store.path, "rev-list", "--merges", "main") == ""
    jobs = store.jobs_in_history([f"job-{number}" for number in range(200)])
    assert jobs == {f"job-{number}": revision for number, revision in enumerate(revisions)}
    with Repository(store.path) as fresh:
        assert fresh.read().entries == store.read().entries
        for index, path in enumerate(paths):
            data = fresh.read().documents[path].data  # type: ignore[union-attr]
            assert [data["spec"]["cache"][f"k{k}"] for k in range(4)] == [index + 50 * k for k in range(4)]  # type: ignore[index,call-overload]
    assert ENVIRONMENT.split(b"    redis: true\n")[0] in show(store, paths[7])
    fsck(store.path)


def test_only_what_changed_is_read_again(store: Repository, clone: Path) -> None:
    first = store.read()
    push(clone, {"sites/acme/site.yaml": SITE + b"# more\n", "nodes/web-1.yaml": b"kind: Node\n", "README.md": b"x"})
    second = store.read()
    assert second.changed_since(first) == {"sites/acme/site.yaml", "nodes/web-1.yaml"}
    assert second.documents[PATH] is first.documents[PATH]
    push(clone, {"nodes/web-1.yaml": None})
    third = store.read()
    assert third.changed_since(second) == {"nodes/web-1.yaml"}
    assert third.changed_since(None) == {"sites/acme/site.yaml", PATH}
    assert store.read(first.revision) is first
    with Repository(store.path) as fresh:
        assert fresh.read().entries == third.entries
    with pytest.raises(NotFound):
        store.read("0" * 40)
    with pytest.raises(NotFound):
        store.read("--output=/tmp/x")


def test_what_is_pushed_broken_stalls_alone(store: Repository, clone: Path) -> None:
    (clone / "nodes").mkdir()
    (clone / "nodes/link.yaml").symlink_to("/etc/passwd")
    (clone / "nodes/dir").symlink_to("/etc")
    (clone / os.fsdecode(b"nodes/\xff.yaml")).write_bytes(b"a: 1\n")
    run_git(clone, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},nodes/sub")
    run_git(clone, "commit", "-q", "-m", "submodule")
    huge = b"a: " + b"x" * 3_000_000
    files = {"nodes/huge.yaml": huge, "nodes/a.yml": b"a: 1", "nodes/bad.yaml": b"a: 1\na: 2\n", ".ci/x.yaml": b"["}
    for name, content in files.items():
        (clone / name).parent.mkdir(exist_ok=True)
        (clone / name).write_bytes(content)
    run_git(clone, "add", *files, "nodes/link.yaml", "nodes/dir", os.fsdecode(b"nodes/\xff.yaml"))
    run_git(clone, "commit", "-q", "-m", "odd")
    # A strict store takes no symbolic link that leaves it only where Git says so; these are content to Git.
    run_git(clone, "push", "-q", "origin", "HEAD:main")
    for repository in (store, Repository(store.path)):
        stalled = {p: d.message for p, d in repository.read().documents.items() if isinstance(d, Stalled)}
        assert {path: message.split(".")[0] for path, message in stalled.items()} == {
            "nodes/link.yaml": "it is a symbolic link, which is never followed",
            "nodes/dir": "it is a symbolic link, which is never followed",
            "nodes/sub": "it is a submodule, which is never followed",
            "nodes/\\xff.yaml": "its name is not UTF-8",
            "nodes/huge.yaml": "3000003 bytes are too many for a document: 262144 at most",
            "nodes/a.yml": "its name ends in ",
            "nodes/bad.yaml": "key `a` is here twice, first on line 1",
        }
        assert isinstance(repository.read().documents[PATH], Document)
    assert isinstance(Repository(store.path).read().documents[PATH], Document)


def test_history_counts_and_dates_what_touched_a_path(store: Repository, clone: Path) -> None:
    store.commit(switch(PATH, "redis", False), ADA)
    first = store.history()
    assert (first[PATH].commits, first["sites/acme/site.yaml"].commits) == (2, 1)
    run_git(clone, "checkout", "-q", "-b", "side")
    (clone / "sites/acme/site.yaml").write_bytes(SITE + b"# side\n")
    run_git(clone, "commit", "-qam", "side")
    run_git(clone, "checkout", "-q", "-")
    run_git(clone, "pull", "-q", "--ff-only")
    run_git(clone, "merge", "-q", "--no-ff", "-m", "Merge", "side")
    run_git(clone, "push", "-q", "origin", "HEAD:main")
    store.commit(switch(PATH, "redis", True), ADA)
    second = store.history()
    assert (second[PATH].commits, second["sites/acme/site.yaml"].commits) == (3, 2)
    assert second[PATH].created_at == first[PATH].created_at <= second[PATH].updated_at
    with Repository(store.path) as fresh:
        assert fresh.history() == second
        assert fresh.history(run_git(store.path, "rev-list", "--max-parents=0", "main"))[PATH].commits == 1
        assert fresh.history() == second


def test_a_document_that_comes_back_goes_on_counting(store: Repository, clone: Path) -> None:
    push(clone, {PATH: None})
    assert store.history()[PATH].commits == 2
    push(clone, {PATH: ENVIRONMENT})
    assert store.history()[PATH].commits == 3


def test_a_cherry_picked_trailer_does_not_move_a_job(store: Repository, clone: Path) -> None:
    commit = store.commit(switch(PATH, "redis", False), ADA, job="j1")
    run_git(clone, "pull", "-q")
    run_git(clone, "revert", "--no-edit", "HEAD")
    run_git(clone, "cherry-pick", commit.revision)
    run_git(clone, "push", "-q", "origin", "HEAD:main")
    assert store.jobs_in_history(["j1"]) == {"j1": commit.revision}


def test_a_push_cannot_rewrite_or_delete(store: Repository, clone: Path) -> None:
    head = push(clone, {"README.md": b"x"})
    run_git(clone, "reset", "-q", "--hard", "HEAD^")
    run_git(clone, "push", "-q", "--force", "origin", "HEAD:main", check=False)
    run_git(clone, "push", "-q", "origin", ":main", check=False)
    assert store.head() == head


def test_a_push_wakes_the_socket_and_never_fails_because_of_it(store: Repository, clone: Path, tmp_path: Path) -> None:
    place = tmp_path / ("long" * 30)
    place.mkdir()
    store.install_hook(place / "it's wake.sock")
    store.install_hook(place / "it's wake.sock")
    push(clone, {"README.md": b"nobody listens"})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wake:
        before = Path.cwd()
        os.chdir(place)
        wake.bind("it's wake.sock")
        os.chdir(before)
        wake.settimeout(120)
        push(clone, {"README.md": b"somebody does"})
        assert wake.recv(100) == b"push"
    hook = store.path / "hooks/post-receive"
    hook.write_text("#!/bin/sh\nmail\n")
    with pytest.raises(StoreError, match="somebody else's"):
        store.install_hook(place / "it's wake.sock")


def test_a_dead_lock_is_cleared_and_a_fresh_one_is_waited_for(store: Repository) -> None:
    lock = store.path / "refs/heads/main.lock"
    for name in ("refs/heads/main.lock", "packed-refs.lock", "HEAD.lock"):
        (store.path / name).touch()
        os.utime(store.path / name, (time.time() - 60, time.time() - 60))
    store.commit(switch(PATH, "redis", False), ADA)
    assert not lock.exists()
    lock.touch()
    left = threading.Event()

    def leave() -> None:
        left.set()
        lock.unlink(missing_ok=True)

    threading.Timer(0.5, leave).start()
    store.commit(switch(PATH, "redis", True), ADA)
    assert left.is_set()
    fsck(store.path)


def test_a_lock_of_a_living_git_is_left_alone(store: Repository) -> None:
    lock = store.path / "refs/heads/main.lock"
    with subprocess.Popen(
        ["git", "update-ref", "--stdin"], cwd=store.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as git:
        assert git.stdin
        assert git.stdout
        git.stdin.write(f"start\nupdate refs/heads/main {store.head()}\nprepare\n".encode())
        git.stdin.flush()
        git.stdout.readline()
        git.stdout.readline()
        os.utime(lock, (time.time() - 60, time.time() - 60))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(store.commit, switch(PATH, "redis", False), ADA)
            time.sleep(0.5)  # it tries a few times
            assert lock.exists()
            assert not waiting.done()
            git.stdin.write(b"abort\n")
            git.stdin.close()
            assert waiting.result(120).revision == store.head()


def test_git_processes_that_were_killed_are_started_again(store: Repository) -> None:
    store.read()
    for child in Path("/proc").glob("[0-9]*"):
        try:
            mine = f"PPid:\t{os.getpid()}\n" in (child / "status").read_text()
            if mine and str(store.path) in (child / "cmdline").read_text():
                os.kill(int(child.name), 9)
        except (FileNotFoundError, ProcessLookupError):
            continue
    assert store.head()
    store.commit(switch(PATH, "redis", False), ADA)


def test_packing_keeps_everything(store: Repository) -> None:
    for number in range(110):
        store.commit(switch(PATH, "n", number), ADA)
    store.maintain()
    assert "packs: 1" in run_git(store.path, "count-objects", "-v")
    assert store.commit(switch(PATH, "n", "last"), ADA).revision == store.head()
    fsck(store.path)


def test_since_when_a_document_names_a_word(store: Repository, clone: Path) -> None:
    def commit(*names: str, at: int) -> None:
        hosts = "".join(f"\n    - hostname: {name}" for name in names)
        text = ENVIRONMENT + f"  domains:{hosts or ' []'}\n".encode()
        (clone / PATH).write_bytes(text)
        date = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "commit", "-qam", "Change"]
        moment = {"GIT_AUTHOR_DATE": f"@{at} +0000", "GIT_COMMITTER_DATE": f"@{at} +0000"}
        subprocess.run(["git", "-C", str(clone), *date], check=True, env={**os.environ, **moment})
        run_git(clone, "push", "-q", "origin", "HEAD:main")

    def since(name: str) -> float | None:
        found = store.named_since(PATH, name)
        return found.timestamp() if found else None

    commit("shop.example.com", at=2_000_000_000)
    commit("shop.example.com", "www.shop.example.com", at=2_000_000_100)
    assert since("shop.example.com") == 2_000_000_000, "a longer name is another one"
    assert since("www.shop.example.com") == 2_000_000_100
    assert since("shopXexample.com") is None, "a dot is a dot"
    commit("www.shop.example.com", at=2_000_000_200)
    commit("www.shop.example.com", "shop.example.com", at=2_000_000_300)
    assert since("shop.example.com") == 2_000_000_300, "it went and came back"


def test_when_a_word_came_and_went_is_told_through_merges_and_whatever_its_case(
    store: Repository, tmp_path: Path
) -> None:
    """Each version of the document that names it anew or no more, oldest first, with the one before them all."""
    clone = tmp_path / "clone"
    run_git(tmp_path, "clone", "-q", str(store.path), str(clone))
    run_git(clone, "config", "user.name", "Ada")
    run_git(clone, "config", "user.email", "ada@example.com")

    def write(release: str, *, fastcgi: str = "true") -> None:
        text = (
            ENVIRONMENT.decode()
            .replace("spec:\n", f"spec:\n  release: {release}\n")
            .replace("fastcgi: true", f"fastcgi: {fastcgi}")
        )
        (clone / PATH).write_text(text, encoding="utf-8")
        run_git(clone, "commit", "-qam", f"Release {release}")

    write("aa-1")
    write("aa-1", fastcgi="false")
    run_git(clone, "checkout", "-qb", "topic")
    write("BB-2", fastcgi="false")
    run_git(clone, "checkout", "-q", "main")
    (clone / "README").write_text("Something else\n", encoding="utf-8")
    run_git(clone, "add", "README")
    run_git(clone, "commit", "-qm", "Something else")
    run_git(clone, "merge", "-q", "--no-ff", "-m", "Merge", "topic")
    write("cc-3")
    run_git(clone, "push", "-q", "origin", "main")

    def told(*words: str) -> list[object]:
        found = store.naming(PATH, words)
        return [
            one.data["spec"].get("release") for one in found if isinstance(one, Document) and isinstance(one.data, dict)
        ]

    assert told("aa-1", "bb-2") == [None, "aa-1", "BB-2", "BB-2", "cc-3"], "the merge brings it, too"
    assert told("cc-3") == ["BB-2", "cc-3"]
    assert told("dd-4") == told() == []
