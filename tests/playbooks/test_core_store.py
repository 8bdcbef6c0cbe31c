"""The store of pristine WordPress trees: what was changed in it, what shares it, and how it is written."""

import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.playbooks.node_modules import COLLECTIONS, PACKAGE, load

core = load("environment.core")
store = load("environment.store")
paths = load("tree.paths")
trees = load("tree.tree")
runs = load("environment.run")
VERSION = "1.2.3"
TREE = {
    "wp-includes/version.php": f"<?php\n$wp_version = '{VERSION}';\n",
    "wp-includes/load.php": "<?php // load",
    "wp-admin/admin.php": "<?php // admin",
    "wp-load.php": "<?php // top",
    "wp-content/index.php": "<?php // content",
}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with one version as it was unpacked."""
    place = tmp_path / "store"
    for name, text in TREE.items():
        file = place / VERSION / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setattr(core, "STORE", str(place))
    monkeypatch.setattr(store, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(paths, "SITES", str(tmp_path / "sites"))
    with trees.Tree(str(place / VERSION)) as tree:
        lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(tree.digests()))
    (place / f"{VERSION}.sha256").write_text(lines)
    return place


@pytest.fixture
def release(kept: Path, tmp_path: Path) -> SimpleNamespace:
    """A release as this Trueup makes it."""
    made = tmp_path / "sites" / "id" / "releases" / "one"
    made.mkdir(parents=True)
    core.lay_core(VERSION, str(made))
    return SimpleNamespace(release=str(made), path=made, content=f"{made}/wp-content")


def later(kept: Path) -> None:
    """Return when what is written now has another time than what is there: file systems count in steps of some ms."""
    beside = kept / "now"
    newest = max(path.stat().st_ctime_ns for path in kept.rglob("*"))
    while True:
        beside.touch()
        if beside.stat().st_ctime_ns > newest:
            return beside.unlink()
        time.sleep(0.001)


def run(tmp_path: Path) -> object:
    return runs.Run(False, str(tmp_path / "pending"), None)


def test_no_link_in_a_release_stays_roots(release: SimpleNamespace) -> None:
    """nginx follows a link to what its owner has: whoever may plant one owns the copy, too."""
    content = Path(release.content)
    (content / "plugins").mkdir(parents=True)
    (content / "index.php").touch()
    (content / "plugins" / "inside.php").symlink_to("../index.php")
    (content / "uploads").symlink_to("/var/www/sites/other")
    out = {
        "etc": "/etc/passwd",
        "up": "../" * 9 + "etc/passwd",
        "plugins/out": "../etc",
        "nowhere": "none",
        "self": "self",
    }
    for name, to in out.items():
        (content / name).symlink_to(to)
    core.give_links(release.release, SimpleNamespace(pw_uid=65534, pw_gid=65534))
    own = {str(path.relative_to(content)): path.lstat().st_uid for path in content.rglob("*") if path.is_symlink()}
    assert own == {"uploads": 0, **dict.fromkeys(("plugins/inside.php", *out), 65534)}


def test_no_link_is_roots_while_code_is_being_locked(release: SimpleNamespace) -> None:
    """A hacked site asks nginx for what its link leads to all the while, and may have very many files."""
    plugins = Path(release.content) / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "a.php").touch()
    (plugins / "leak.txt").symlink_to("/etc/passwd")
    paths.own(str(plugins), 65534, 65534)
    assert (plugins / "leak.txt").lstat().st_uid == 65534
    paths.own(str(plugins), 0, 0)
    assert [one.lstat().st_uid for one in (plugins, plugins / "a.php")] == [0, 0]
    assert (plugins / "leak.txt").lstat().st_uid == 65534


def test_a_site_with_files_without_end_is_put_right_all_the_same(
    release: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in core.USER_DIRECTORIES:
        (Path(release.content) / name).mkdir(parents=True)
    monkeypatch.setattr(core, "Tree", lambda top: trees.Tree(top, most=1))
    made, user = run(tmp_path), SimpleNamespace(pw_uid=65534, pw_gid=65534)
    assert core.ensure_ownership(made, release, user, locked=False)
    assert [note for note in made.notes if "more files than any site" in note]


def test_what_is_as_it_was_unpacked_is_whole_and_sealed(kept: Path) -> None:
    assert core.condition(VERSION) == store.WHOLE
    seal = (kept / f"{VERSION}.seal").read_text()
    assert core.condition(VERSION) == store.WHOLE
    later(kept)
    (kept / VERSION / "wp-load.php").touch()
    assert core.condition(VERSION) == store.WHOLE
    assert (kept / f"{VERSION}.seal").read_text() != seal
    assert core.condition("9.9") == store.DAMAGED


@pytest.mark.parametrize("damage", ["changed", "added", "removed", "writable", "given", "unrecorded"])
@pytest.mark.parametrize("sealed", [True, False])
def test_what_is_not_as_it_was_unpacked_is_not_built_on(kept: Path, damage: str, sealed: bool) -> None:
    import os

    if sealed:
        assert core.condition(VERSION) == store.WHOLE
    later(kept)
    file = kept / VERSION / "wp-includes" / "load.php"
    if damage == "changed":
        before = file.stat()
        file.write_text("<?php // LOAD")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif damage == "added":
        (kept / VERSION / "wp-includes" / "more.php").write_text("<?php")
    elif damage == "removed":
        file.unlink()
    elif damage == "writable":
        file.chmod(0o666)
    elif damage == "given":
        os.chown(file, 33, 33)
    else:
        (kept / f"{VERSION}.sha256").unlink()
        file.touch()
        (kept / f"{VERSION}.seal").unlink(missing_ok=True)
    assert core.condition(VERSION) == store.DAMAGED
    with pytest.raises(runs.Failure, match="is not as it was unpacked"):
        core.refuse_unless_whole(VERSION)


def test_a_store_that_releases_are_linked_to_gets_its_own_inodes(kept: Path, tmp_path: Path) -> None:
    file = kept / VERSION / "wp-includes" / "load.php"
    linked = tmp_path / "linked.php"
    linked.hardlink_to(file)
    moment = file.stat().st_mtime_ns
    assert core.condition(VERSION) == store.SHARED
    assert core.is_ready(run(tmp_path), VERSION)
    assert core.condition(VERSION) == store.WHOLE
    assert (file.read_text(), file.stat().st_mtime_ns) == (TREE["wp-includes/load.php"], moment)
    assert linked.stat().st_ino != file.stat().st_ino
    assert sorted(path.name for path in kept.iterdir()) == [VERSION, f"{VERSION}.seal", f"{VERSION}.sha256"]


def test_a_release_is_a_link_and_copies(kept: Path, release: SimpleNamespace) -> None:
    assert sorted(path.name for path in release.path.iterdir()) == ["wp-admin", "wp-includes", "wp-load.php"]
    assert (release.path / "wp-includes").readlink() == kept / VERSION / "wp-includes"
    assert (release.path / "wp-admin" / "admin.php").stat().st_nlink == 1
    assert core.condition(VERSION) == store.WHOLE
    assert core.version_of(release.release) == VERSION


def test_what_of_a_release_is_not_the_stores_is_mended(kept: Path, release: SimpleNamespace, tmp_path: Path) -> None:
    assert not core._mend(run(tmp_path), release, VERSION)
    (release.path / "wp-load.php").write_text("<?php // evil")
    (release.path / "wp-admin" / "admin.php").unlink()
    (release.path / "wp-admin" / "admin.php").symlink_to(kept / VERSION / "wp-admin" / "admin.php")
    (release.path / "wp-includes").unlink()
    (release.path / "wp-includes").mkdir()
    (release.path / "wp-includes" / "load.php").hardlink_to(kept / VERSION / "wp-includes" / "load.php")
    (release.path / "wp-includes" / "version.php").mkdir()
    assert core._mend(run(tmp_path), release, VERSION)
    for name, text in TREE.items():
        file = release.path / name
        if not name.startswith("wp-content/"):
            assert (file.read_text(), file.is_symlink(), file.stat().st_nlink) == (text, False, 1)
    assert not core._mend(run(tmp_path), release, VERSION)
    assert not [path for path in release.path.rglob("*") if "trueup" in path.name]


def test_a_damaged_store_mends_nothing(kept: Path, release: SimpleNamespace, tmp_path: Path) -> None:
    (kept / VERSION / "wp-load.php").write_text("<?php // evil")
    with pytest.raises(runs.Failure, match="is not as it was unpacked"):
        core._mend(run(tmp_path), release, VERSION)
    assert (release.path / "wp-load.php").read_text() == TREE["wp-load.php"]


BENEATH = f"""
import errno, subprocess, sys
sys.path.append({COLLECTIONS!r})
from {PACKAGE}.environment import store
place = sys.argv[1]
subprocess.run(["mount", "--bind", "-o", "ro", place, place], check=True)
subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
def write(text):
    with open(place + "/file", "a") as file:
        file.write(text)
def is_refused():
    try:
        write("mistake")
    except OSError as error:
        return error.errno == errno.EROFS
assert is_refused()
with store.writable(place):
    write("one")
    subprocess.run(["sh", "-c", "printf two >> $0/file", place], check=True)
    with store.writable(place):
        write("three")
try:
    with store.writable(place):
        raise KeyError
except KeyError:
    pass
assert is_refused()
print(open(place + "/file").read())
"""


def test_only_beneath_the_mount_is_the_store_written(tmp_path: Path) -> None:
    argv = ["unshare", "--mount", sys.executable, "-c", BENEATH, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("onetwothree\n", "")
