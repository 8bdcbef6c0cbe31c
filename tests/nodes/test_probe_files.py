"""What the probe says of a site's files, whatever lies there: it follows nothing, waits for nothing, and ends."""

import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from reconciler.core.observed import ObservedEnvironment
from reconciler.nodes import probe

ONE = "11111111-2222-4333-8444-555555555555"
VERSION = "1.2.3"
CORE = {"wp-includes/load.php": "load", "wp-admin/admin.php": "admin", "wp-load.php": "top"}
CONTENT = {"wp-content/index.php": "silence", "wp-content/plugins/a/a.php": "a"}


def lines(files: dict[str, str]) -> str:
    return "".join(f"{sha256(text.encode()).hexdigest()}  {name}\n" for name, text in files.items())


def write(place: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site that is as it was made, linked to the store."""
    monkeypatch.setattr(probe, "SITES", str(tmp_path / "sites"))
    monkeypatch.setattr(probe, "STORE", str(tmp_path / "store"))
    write(tmp_path / "store" / VERSION, {**CORE, **CONTENT})
    (tmp_path / "store" / f"{VERSION}.sha256").write_text(lines({**CORE, **CONTENT}))
    site = tmp_path / "sites" / ONE
    made = site / "releases" / "one"
    write(made, {name: text for name, text in {**CORE, **CONTENT}.items() if not name.startswith("wp-includes/")})
    (made / "wp-includes").symlink_to(tmp_path / "store" / VERSION / "wp-includes")
    (site / "current").symlink_to("releases/one")
    (site / "shared" / "uploads").mkdir(parents=True)
    (made / "wp-content" / "uploads").symlink_to(site / "shared" / "uploads")
    return made


def found(release: Path, seconds: float = 30.0) -> set[tuple[str, str, str]]:
    applied: dict[str, Any] = {"variables": {"wordpress_version": VERSION}}
    told = probe._differences(ONE, {"applied": applied}, probe.Stores(), seconds)
    assert len(told) == len({one["path"] for one in told})
    return {(one["path"], one["kind"], one["area"]) for one in told}


def uploads(release: Path) -> Path:
    return release.parents[1] / "shared" / "uploads"


def test_what_is_as_it_was_made_shows_nothing(release: Path) -> None:
    assert found(release) == set()


def test_the_store_is_read_too(release: Path) -> None:
    store = Path(probe.STORE) / VERSION
    (store / "wp-includes" / "load.php").write_text("LOAD")
    (store / "wp-admin" / "admin.php").write_text("ADMIN")
    (store / "wp-includes" / "more.php").write_text("more")
    assert found(release) == {
        ("wp-includes/load.php", "modified", "core"),
        ("wp-admin/admin.php", "modified", "core"),
        ("wp-includes/more.php", "unknown", "core"),
    }


def test_another_place_for_core_is_no_core(release: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"load.php": "load"})
    (release / "wp-includes").unlink()
    (release / "wp-includes").symlink_to(tmp_path / "elsewhere")
    assert ("wp-includes/load.php", "missing", "core") in found(release)


def test_a_directory_of_core_of_its_own_is_read(release: Path) -> None:
    (release / "wp-includes").unlink()
    write(release, {"wp-includes/load.php": "evil"})
    assert found(release) == {("wp-includes/load.php", "modified", "core")}


def fifo(path: Path) -> None:
    os.mkfifo(path)


def hole(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(8 << 40)


PLANTED: dict[str, Callable[[Path], None]] = {
    "fifo": fifo,
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "shadow": lambda path: path.symlink_to("/etc/shadow"),
    "itself": lambda path: path.symlink_to(path.name),
    "nowhere": lambda path: path.symlink_to("/nowhere"),
    "socket": lambda path: os.mknod(path, 0o140644),
    "hole": hole,
}


@pytest.mark.parametrize("planted", PLANTED)
def test_whatever_is_planted_is_told_and_opened_by_nobody(release: Path, planted: str) -> None:
    for path in (release / "wp-content" / "plugins" / "x.php", uploads(release) / "x.php", uploads(release) / "x.jpg"):
        PLANTED[planted](path)
    assert found(release) == {
        ("wp-content/plugins/x.php", "unknown", "release"),
        ("uploads/x.php", "unknown", "uploads"),
    }


@pytest.mark.parametrize("planted", [name for name in PLANTED if name != "hole"])
def test_in_the_place_of_a_known_file_it_is_modified(release: Path, planted: str) -> None:
    (release / "wp-content" / "index.php").unlink()
    PLANTED[planted](release / "wp-content" / "index.php")
    assert found(release) == {("wp-content/index.php", "modified", "release")}


def test_a_hole_in_the_place_of_a_known_file_ends_the_look(release: Path) -> None:
    hole(release / "wp-content" / "index.php")
    assert ("wp-content/", "unknown", "release") in found(release, seconds=0.5)


def test_a_link_in_the_place_of_a_directory_is_not_gone_into(release: Path, tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", {"a/a.php": "a"})
    (release / "wp-content" / "plugins").rename(release.parent / "was")
    (release / "wp-content" / "plugins").symlink_to(tmp_path / "elsewhere")
    assert ("wp-content/plugins/a/a.php", "missing", "release") in found(release)


def test_a_link_to_a_file_of_the_releases_own_is_that_file(release: Path) -> None:
    (release / "wp-content" / "index.php").rename(release / "wp-content" / "plugins" / "a" / "index.php")
    (release / "wp-content" / "index.php").symlink_to("plugins/a/index.php")
    assert found(release) == {("wp-content/plugins/a/index.php", "unknown", "release")}


def test_a_link_is_where_it_leads(release: Path) -> None:
    made_of = {**CONTENT, "wp-content/plugins/link": "-> /elsewhere"}
    release.with_name("one.sha256").write_text(lines(made_of))
    (release / "wp-content" / "plugins" / "link").symlink_to("/elsewhere")
    assert found(release) == set()


def test_what_is_managed_may_be_newer_than_what_the_release_was_made_of(release: Path) -> None:
    """One that was copied from another has in its list what was managed there: an upgrade writes it anew."""
    plugin = "wp-content/mu-plugins/trueup.php"
    write(release, {plugin: "newer"})
    release.with_name("one.sha256").write_text(lines({**CONTENT, plugin: "older"}))
    assert found(release) == {(plugin, "modified", "release")}, "nobody says that it is managed"
    applied = {"variables": {"wordpress_version": VERSION}, "files": {str(release.resolve() / plugin): "a digest"}}
    assert probe._differences(ONE, {"applied": applied}, probe.Stores(), 30.0) == []


@pytest.mark.parametrize("where", ["release", "uploads"])
def test_more_than_a_look_may_cost_is_told(release: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here = release / "wp-content" / "plugins" / "a" if where == "release" else uploads(release)
    write(here / "many", {f"{number}.jpg": "" for number in range(300)})
    monkeypatch.setattr(probe, "MOST_ENTRIES", 200)
    told = found(release)
    assert {kind for _, kind, _ in told} == {"unknown"}
    assert all(path.endswith("/") for path, _, _ in told)


def test_endless_directories_end(release: Path) -> None:
    here = os.open(uploads(release), os.O_RDONLY)
    for _ in range(200):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    shutil.copytree(uploads(release), release / "wp-content" / "plugins" / "deep")
    (release / "wp-content" / "plugins" / "z.php").touch()
    told = sorted(found(release))
    assert [(path.rstrip("d/"), area) for path, _, area in told] == [
        ("uploads", "uploads"),
        ("wp-content/plugins/deep", "release"),
        ("wp-content/plugins/z.php", "release"),
    ]


def test_no_name_makes_an_answer_that_nobody_reads(release: Path) -> None:
    here = os.fsencode(uploads(release))
    for name in (b"\xff\xfe.php", b"\x1b[2J.php", "\u2028.php".encode()):
        Path(os.fsdecode(here + b"/" + name)).write_text("<?php evil();")
    told = probe._differences(ONE, {"applied": {"variables": {"wordpress_version": VERSION}}}, probe.Stores(), 30.0)
    environment = {"applied": None, "differences": told}
    seen = ObservedEnvironment.model_validate_json(json.dumps(environment))
    assert seen.differences is not None
    assert {one.path for one in seen.differences} == {
        "uploads/\\xff\\xfe.php",
        "uploads/\x1b[2J.php",
        "uploads/\u2028.php",
    }


def test_no_number_of_files_fills_the_answer(release: Path) -> None:
    write(uploads(release), {f"{'x' * 200}{number}.php": "<?php evil();" for number in range(2000)})
    told = found(release)
    assert 100 < len(told) < 1000
    assert ("uploads/", "unknown", "uploads") in told


def test_owner_and_mode_count_like_content(tmp_path: Path) -> None:
    file = tmp_path / "wp-config.php"
    file.write_text("secret")
    file.chmod(0o640)
    digest = sha256(b"secret").hexdigest()
    assert probe._state(str(file), None) == digest
    assert probe._state(str(file), "0640 0 0") == digest
    assert probe._state(str(file), "0640 0 33") not in (digest, None)
    file.chmod(0o666)
    assert probe._state(str(file), "0640 0 0") not in (digest, None)
    assert probe._state(str(file), "* 0 0") == digest
    assert probe._state(str(file), "* 33 0") not in (digest, None)
    assert probe._state(str(tmp_path / "gone"), "0640 0 0") is None
    directory = probe._state(str(tmp_path), f"{tmp_path.stat().st_mode & 0o7777:04o} 0 0")
    assert directory == sha256(b"directory").hexdigest()
    assert probe._state(str(tmp_path), "0711 0 0") != directory
