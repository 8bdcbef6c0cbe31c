"""What of a release is as it was released: kept, taken from elsewhere on the node, or lost."""

from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.playbooks.node_modules import load

derived = load("release.derived_tree")
core = load("environment.core")
GOOD = b"<?php // as released"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work, with one file kept, one altered and a link in a file's place; one other release, and no core."""
    monkeypatch.setattr(core, "STORE", str(tmp_path / "store"))
    content = tmp_path / "work" / "wp-content"
    content.mkdir(parents=True)
    (content / "kept.php").write_bytes(GOOD)
    (content / "altered.php").write_bytes(b"<?php // altered")
    (content / "secret").write_bytes(GOOD)
    (content / "linked.php").symlink_to("secret")
    (tmp_path / "releases" / "other" / "wp-content").mkdir(parents=True)
    return tmp_path


def _put_back(site: Path, name: str) -> bool:
    layout = SimpleNamespace(releases=str(site / "releases"))
    digest = sha256(GOOD).hexdigest()
    found: bool = derived._put_back(f"wp-content/{name}", digest, layout, "7.1.1", str(site / "work"))
    return found


@pytest.mark.parametrize(("name", "is_there"), [("kept.php", True), ("altered.php", False), ("linked.php", False)])
def test_a_file_is_as_released_or_lost(site: Path, name: str, is_there: bool) -> None:
    assert _put_back(site, name) is is_there
    assert (site / "work" / "wp-content" / name).exists() is is_there


@pytest.mark.parametrize("name", ["altered.php", "linked.php", "removed/too.php"])
def test_another_release_has_it(site: Path, name: str) -> None:
    other = site / "releases" / "other" / "wp-content" / name
    other.parent.mkdir(exist_ok=True)
    other.write_bytes(GOOD)
    assert _put_back(site, name)
    found = site / "work" / "wp-content" / name
    assert (found.read_bytes(), found.is_symlink()) == (GOOD, False)


def test_what_another_release_changed_too_is_no_help(site: Path) -> None:
    (site / "releases" / "other" / "wp-content" / "altered.php").write_bytes(b"<?php // altered, too")
    assert not _put_back(site, "altered.php")
    assert not (site / "work" / "wp-content" / "altered.php").exists()


def test_what_is_unknown_goes_with_the_directories_that_it_leaves_empty(site: Path) -> None:
    content = site / "work" / "wp-content"
    (content / "plugins" / "strange").mkdir(parents=True)
    (content / "plugins" / "strange" / "strange.php").write_bytes(GOOD)
    (content / "uploads").symlink_to("/nowhere")
    derived._take_out_unknown(str(site / "work"), {"wp-content/kept.php": ""})
    assert [path.name for path in content.rglob("*")] == ["kept.php"]
