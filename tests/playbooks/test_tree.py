"""Root's work on files beneath a directory in which somebody else plants, links and exchanges."""

import ctypes
import multiprocessing
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.playbooks.node_modules import load
from tests.proof import count

trees = load("tree.tree")
descriptors = load("tree.descriptors")
paths = load("tree.paths")
CANARY = "the neighbour's password"
FIFO_PATIENCE = 20


@pytest.fixture
def neighbour(tmp_path: Path) -> Path:
    """What no work beneath the site may read, change or remove."""
    found = tmp_path / "neighbour"
    found.mkdir()
    (found / "wp-config.php").write_text(CANARY)
    return found


@pytest.fixture
def site(tmp_path: Path, neighbour: Path) -> Path:
    """A site whose user has put in whatever he could think of."""
    found = tmp_path / "site"
    (found / "content" / "plugins" / "deep").mkdir(parents=True)
    (found / "content" / "index.php").write_text("<?php")
    (found / "content" / "plugins" / "deep" / "a.php").write_text("<?php // a")
    (found / "content" / "link").symlink_to(neighbour)
    (found / "content" / "plugins" / "link.php").symlink_to(neighbour / "wp-config.php")
    os.mkfifo(found / "content" / "plugins" / "x.php")
    os.link(neighbour / "wp-config.php", found / "content" / "hard.php")
    with (found / "content" / "huge.bin").open("wb") as file:
        file.truncate(8 << 40)
    return found


def untouched(neighbour: Path) -> bool:
    file = neighbour / "wp-config.php"
    found, names = file.stat(), [path.name for path in neighbour.iterdir()]
    facts = (file.read_text(), found.st_uid, stat.S_IMODE(found.st_mode), names)
    return facts == (CANARY, 0, 0o644, ["wp-config.php"])


@pytest.mark.parametrize("opening", ["openat2", "steps"])
@pytest.mark.parametrize(
    "name",
    ["content/link/wp-config.php", "content/plugins/link.php", "content/plugins/x.php", "../neighbour/x", "/etc"],
)
def test_no_name_leads_out_nor_blocks(site: Path, name: str, opening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if opening == "steps":
        monkeypatch.setattr(trees, "open_beneath", descriptors._open_by_steps)
    with trees.Tree(str(site)) as tree:
        assert tree.read(name) is None
        assert tree.digest(name) is None
        assert tree.names(name) == []


def test_an_ordinary_file_is_read_written_and_linked(site: Path) -> None:
    with trees.Tree(str(site)) as tree:
        assert tree.read("content/index.php") == b"<?php"
        assert tree.read("content/index.php", most=4) is None
        assert tree.read("content/huge.bin") is None
        tree.replace("content/index.php", b"new", 0o640, 33, 33)
        tree.link("current", "content")
        tree.directory("a/b/c", 0o750, 33, 33)
        assert tree.target("current") == "content"
        assert tree.target("content") is None
        assert tree.status("content/nothing") is None
    found = (site / "content" / "index.php").stat()
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (33, 33, 0o640)
    assert [(site / path).stat().st_uid for path in ("a", "a/b", "a/b/c")] == [0, 0, 33]
    assert sorted(path.name for path in (site / "content").iterdir()) == sorted(
        ["hard.php", "huge.bin", "index.php", "link", "plugins"]
    )


def test_a_write_through_a_link_is_refused(site: Path, neighbour: Path) -> None:
    with trees.Tree(str(site)) as tree:
        for work in (
            lambda: tree.replace("content/link/wp-config.php", b"", 0o666),
            lambda: tree.directory("content/link/made"),
            lambda: tree.directory("content/link", 0o777, 33, 33),
            lambda: tree.set("content/plugins/link.php", 0o666, 33, 33),
            lambda: tree.set("content/hard.php", 0o666, 33, 33),
            lambda: tree.own("content/link", 33, 33),
            lambda: tree.link("content/link/current", "/"),
        ):
            with pytest.raises(OSError, match=r"."):
                work()
    assert untouched(neighbour)


def test_all_is_given_but_what_has_another_name(site: Path, neighbour: Path) -> None:
    with trees.Tree(str(site)) as tree:
        tree.own("content", 33, 34)
        assert tree.skipped == ["hard.php: has another name elsewhere, so its owner stays"]
    for path in (site / "content", *(site / "content").rglob("*")):
        found = path.lstat()
        if path.name not in ("hard.php", "x.php"):
            assert (found.st_uid, found.st_gid) == (33, 34), path
    assert untouched(neighbour)


def test_a_copy_leaves_out_what_is_no_file_of_the_site(site: Path, neighbour: Path, tmp_path: Path) -> None:
    os.chown(site / "content" / "index.php", 33, 33)
    told = paths.copy(str(site / "content"), str(tmp_path / "copy"), keep=33, leave_out=("huge.bin",))
    copy = tmp_path / "copy"
    found = sorted(str(path.relative_to(copy)) for path in copy.rglob("*"))
    assert found == ["index.php", "link", "plugins", "plugins/deep", "plugins/deep/a.php", "plugins/link.php"]
    assert (copy / "link").is_symlink()
    assert "x.php: is neither a file nor a directory" in told
    assert "hard.php: has another name elsewhere" in told
    assert [(copy / name).stat().st_uid for name in ("index.php", "plugins/deep/a.php")] == [33, 0]
    assert (copy / "index.php").stat().st_mtime_ns == (site / "content" / "index.php").stat().st_mtime_ns
    assert untouched(neighbour)


def test_a_hole_stays_a_hole(site: Path, tmp_path: Path) -> None:
    with (site / "content" / "sparse").open("wb") as file:
        file.seek(1 << 30)
        file.write(b"end")
    paths.copy(str(site / "content" / "sparse"), str(tmp_path / "sparse"))
    found = (tmp_path / "sparse").stat()
    assert found.st_size == (1 << 30) + 3
    assert found.st_blocks * 512 < 1 << 20
    with (tmp_path / "sparse").open("rb") as file:
        file.seek(1 << 30)
        assert file.read() == b"end"


def test_what_the_site_itself_linked_twice_is_read(site: Path) -> None:
    for path in (site / "content", site / "content" / "index.php"):
        os.chown(path, 33, 33)
    os.link(site / "content" / "index.php", site / "content" / "twice.php")
    with trees.Tree(str(site)) as tree:
        found = dict(tree.digests("content", leave_out=("huge.bin", "plugins")))
    assert set(found) == {"index.php", "twice.php", "link"}
    assert found["link"].startswith("-> ")


def test_a_tree_is_removed_however_deep(tmp_path: Path, neighbour: Path) -> None:
    (tmp_path / "site" / "top").mkdir(parents=True)
    here = os.open(tmp_path / "site" / "top", os.O_RDONLY)
    for _ in range(400):
        os.mkdir("d", dir_fd=here)
        os.symlink(neighbour, "link", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    with trees.Tree(str(tmp_path / "site")) as tree:
        tree.own("top", 33, 33)
        assert [line.rpartition(": ")[2] for line in tree.skipped] == ["lies too deep"]
        tree.remove("top")
        tree.remove("top")
    assert list((tmp_path / "site").iterdir()) == []
    assert untouched(neighbour)


def test_room_is_made_in_the_place_of_a_link(site: Path, neighbour: Path) -> None:
    with trees.Tree(str(site)) as tree:
        tree.room("content/link/deep/wp-config.php")
        tree.room("content/index.php/a.php")
        tree.replace("content/link/deep/wp-config.php", b"own", 0o644)
        tree.remove("content/plugins/link.php/wp-config.php")
    assert (site / "content" / "link" / "deep" / "wp-config.php").read_text() == "own"
    assert (site / "content" / "index.php").is_dir()
    assert untouched(neighbour)


def test_endless_files_are_an_error(site: Path) -> None:
    with trees.Tree(str(site), most=3) as tree, pytest.raises(OSError, match="more files"):
        list(tree.digests("content"))


# Somebody exchanges what is being worked on


def _exchange(one: str, other: str, until: Any) -> None:
    libc = ctypes.CDLL(None)
    while not until.is_set():
        libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2)


@contextmanager
def exchanging(one: Path, other: Path) -> Iterator[None]:
    """Another process has the two trade places all the time."""
    context = multiprocessing.get_context("spawn")
    until = context.Event()
    process = context.Process(target=_exchange, args=(str(one), str(other), until))
    process.start()
    try:
        yield
    finally:
        until.set()
        process.join()


WORK: dict[str, Callable[[Path], Any]] = {
    "copied": lambda top: paths.copy(str(top / "site"), str(top / f"copy-{time.monotonic_ns()}")),
    "digested": lambda top: _in(top, lambda tree: dict(tree.digests("site"))),
    "given": lambda top: _in(top, lambda tree: tree.own("site", 33, 33)),
    "written": lambda top: _in(top, lambda tree: tree.replace("site/content/wp-config.php", b"new", 0o600, 33, 33)),
    "read": lambda top: _in(top, lambda tree: tree.read("site/content/wp-config.php")),
    "made": lambda top: _in(top, lambda tree: tree.directory("site/content/made", 0o777, 33, 33)),
}


def _in(top: Path, work: Callable[[Any], Any]) -> Any:
    with trees.Tree(str(top)) as tree:
        return work(tree)


@pytest.mark.parametrize("what", WORK)
@pytest.mark.parametrize("where", ["directory", "file"])
def test_what_is_exchanged_meanwhile_is_never_followed(tmp_path: Path, neighbour: Path, what: str, where: str) -> None:
    """A directory, or a file, and a link to the neighbour's trade places while root is at work."""
    (tmp_path / "site" / "content").mkdir(parents=True)
    (tmp_path / "site" / "content" / "wp-config.php").write_text("own")
    one = tmp_path / "site" / "content" if where == "directory" else tmp_path / "site" / "content" / "wp-config.php"
    other = tmp_path / "other"
    other.symlink_to(neighbour if where == "directory" else neighbour / "wp-config.php")
    found = []
    with exchanging(one, other):
        for _ in range(count(short=100, full=2000)):
            try:
                found.append(WORK[what](tmp_path))
            except OSError:
                continue
    assert untouched(neighbour)
    assert CANARY.encode() not in found
    told = {value for one in found if isinstance(one, dict) for value in one.values()}
    assert descriptors.hashlib.sha256(CANARY.encode()).hexdigest() not in told
    for copy in tmp_path.glob("copy-*"):
        for path in copy.rglob("wp-config.php"):
            assert path.is_symlink() or path.read_text() != CANARY
        shutil.rmtree(copy)


def test_what_is_removed_while_it_is_exchanged_takes_nothing_along(tmp_path: Path, neighbour: Path) -> None:
    (tmp_path / "site").mkdir()
    other = tmp_path / "other"
    other.symlink_to(neighbour)
    for _ in range(count(short=5, full=100)):
        (tmp_path / "site" / "content" / "inner").mkdir(parents=True)
        with exchanging(tmp_path / "site" / "content", other), trees.Tree(str(tmp_path)) as tree:
            for _ in range(20):
                try:
                    tree.remove("site")
                except OSError:
                    continue
        for left in (tmp_path / "site", other):
            if left.is_symlink():
                left.unlink()
            elif left.exists():
                shutil.rmtree(left)
        other.symlink_to(neighbour)
    assert untouched(neighbour)
