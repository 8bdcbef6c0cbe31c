"""Addresses replaced in what plugins generate under uploads."""

import os
import stat
from pathlib import Path

import pytest

from tests.playbooks.node_modules import load
from tests.playbooks.rewrite_cases import NEW, OLD

files, tables, rewriting = load("content.rewrite_files"), load("content.rewrite_tables"), load("content.rewrite")
DATA = '{"u":"%s"}'
CSS = ".a{background:url(%s/wp-content/uploads/a.png)}"


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    found = tmp_path / "uploads"
    (found / "elementor" / "css").mkdir(parents=True)
    (found / "elementor" / "css" / "post-7.css").write_text(CSS % OLD)
    (found / "elementor" / "css" / "post-7.css").chmod(0o640)
    (found / "data.json").write_text(DATA % OLD.replace("/", "\\/"))
    (found / "other.css").write_text(CSS % "http://other.example")
    (found / "photo.jpg").write_text(OLD)
    return found


def rewrite(uploads: Path) -> tuple[int, list[dict[str, object]]]:
    changes = tables.Changes()
    return files.rewrite_files(str(uploads), rewriting.Rewriter([(OLD, NEW)]), changes), changes.left


def test_stylesheets_and_json_follow_and_nothing_else_is_touched(uploads: Path) -> None:
    before = {path: path.stat().st_ino for path in uploads.rglob("*")}
    assert rewrite(uploads) == (2, [])
    css = uploads / "elementor" / "css" / "post-7.css"
    assert css.read_text() == CSS % NEW
    assert stat.S_IMODE(css.stat().st_mode) == 0o640
    assert (uploads / "data.json").read_text() == DATA % NEW.replace("/", "\\/")
    assert {path.name for path in before if path.stat().st_ino != before[path]} == {"post-7.css", "data.json"}
    assert set(uploads.rglob("*")) == set(before)
    assert rewrite(uploads) == (0, [])


def test_no_link_is_followed_and_no_pipe_is_waited_for(uploads: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.css"
    outside.write_text(CSS % OLD)
    (uploads / "link.css").symlink_to(outside)
    (uploads / "directory").symlink_to(tmp_path)
    os.mkfifo(uploads / "pipe.css")
    with (uploads / "huge.css").open("wb") as file:
        file.truncate(8 << 40)
    assert rewrite(uploads)[0] == 2
    assert outside.read_text() == CSS % OLD
    assert (uploads / "link.css").is_symlink()


def test_what_stays_is_told(uploads: Path) -> None:
    (uploads / "broken.json").write_text(f's:9:"{OLD}";')
    count, (told,) = rewrite(uploads)
    assert count == 2
    assert (told["table"], told["column"], told["count"]) == ("uploads", "*.json", 1)


def test_no_uploads(tmp_path: Path) -> None:
    assert rewrite(tmp_path / "none")[0] == 0
