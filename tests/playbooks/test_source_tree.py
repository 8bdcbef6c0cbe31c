"""What a source lacks, and what of it goes into no release: trees of this host, as they are unpacked on a node."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.playbooks.node_modules import load

trees = load("release.source_tree")
project = load("release.composer_project")
run = load("environment.run")
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
MODULES = """[submodule "shop"]
\tpath = wp-content/plugins/shop
\turl = https://git.example.com/shop.git
"""
VERSION = "7.1.1"


BEDROCK = {
    "web/app/mu-plugins/{$name}/": ["type:wordpress-muplugin"],
    "web/app/plugins/{$name}/": ["type:wordpress-plugin"],
    "web/app/themes/{$name}/": ["type:wordpress-theme"],
}
PROJECT = {
    "composer.json": json.dumps({"require": {"php": ">=8.3"}, "extra": {"installer-paths": BEDROCK}}),
    "config/application.php": "<?php",
    "web/index.php": "<?php",
    "web/wp-config.php": "<?php",
    "web/favicon.ico": "x",
    "web/app/plugins/.gitkeep": "",
    "web/app/themes/own/style.css": "x",
    "web/wp/wp-includes/version.php": "<?php $wp_version = '6.0';",
}
OTHER_CORE = {"wp/wp-includes/version.php": "<?php $wp_version = '6.0';", "wp/wp-content/": ""}
"""Of whatever version, with a wp-content of its own that nobody is meant to have."""


def laid(top: Path, files: Mapping[str, str]) -> tuple[str, str]:
    """The tree, and its wp-content; a name that ends in a slash is an empty directory."""
    for name, text in files.items():
        path = top / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(top), trees.content_of(str(top), VERSION)


@pytest.mark.parametrize(
    ("files", "is_git", "named"),
    [
        # A gitlink that nobody declared, too: somebody added a plugin with its own .git in it.
        ({"wp-content/plugins/shop/": ""}, True, "wp-content/plugins/shop: Git submodules"),
        ({"plugins/shop/": "", "themes/own/style.css": "x"}, True, "plugins/shop: Git submodules"),
        ({"wp-content/": ""}, True, "wp-content: Git submodules"),
        ({"web/wp-content/plugins/a/deep/": ""}, True, "web/wp-content/plugins/a/deep: Git submodules"),
        ({"wp-content/plugins/shop/": "", ".gitmodules": MODULES}, False, "wp-content/plugins/shop: Git submodules"),
        ({"wp-content/themes/own/logo.png": POINTER}, True, "wp-content/themes/own/logo.png: in Git LFS"),
        ({"wp-content/themes/own/logo.png": POINTER}, False, "wp-content/themes/own/logo.png: in Git LFS"),
        (
            {f"wp-content/plugins/a/{n}.bin": POINTER for n in range(7)} | {"wp-content/plugins/shop/": ""},
            True,
            "wp-content/plugins/a/0.bin, .*/4.bin and 2 more: in Git LFS",
        ),
    ],
)
def test_what_is_only_named_is_refused_by_name(
    files: Mapping[str, str], is_git: bool, named: str, tmp_path: Path
) -> None:
    top, content = laid(tmp_path, files)
    with pytest.raises(run.Failure) as failed:
        trees.refuse_incomplete(top, content, (), is_git=is_git)
    assert failed.value.facts["trueup_code"] == "SOURCE_INCOMPLETE"
    assert re.search(named, str(failed.value)), failed.value


@pytest.mark.parametrize(
    ("files", "is_git"),
    [
        ({"wp-content/plugins/shop/": ""}, False),
        ({"wp-content/plugins/shop/shop.php": "<?php", ".gitmodules": MODULES}, False),
        ({"tools/": "", "docs/picture.png": POINTER}, True),
        ({"wp-content/uploads/": "", "wp-content/cache/page.png": POINTER}, True),
        ({"wp-content/plugins/a/about.md": f"A pointer is:\n{POINTER}"}, True),
        ({"wp-content/plugins/a/long.txt": POINTER + "x" * 2000}, True),
    ],
)
def test_what_is_whole_is_not(files: Mapping[str, str], is_git: bool, tmp_path: Path) -> None:
    """Also where a part that is served to nobody is only named."""
    top, content = laid(tmp_path, {"wp-content/plugins/own.php": "<?php"} | dict(files))
    trees.refuse_incomplete(top, content, (), is_git=is_git)


def test_a_file_beside_wp_content_is_looked_at_too(tmp_path: Path) -> None:
    top, content = laid(tmp_path, {"wp-content/plugins/own.php": "<?php", "logo.png": POINTER})
    with pytest.raises(run.Failure, match=r"logo\.png: in Git LFS"):
        trees.refuse_incomplete(top, content, (f"{top}/logo.png",), is_git=True)


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    files = dict.fromkeys(
        (
            *("index.php", "config/application.php", "composer.json", ".gitignore", ".htaccess", "web/index.php"),
            *("web/wp-content/plugins/own.php", "web/wp-content/db.php", "web/wp-content/sunrise.php"),
            *("web/wp-content/uploads/a.png", "web/wp-content/index.php", "web/robots.txt"),
        ),
        "x",
    )
    top, content = laid(tmp_path, files)
    told = trees.left_out(top, content, VERSION, (f"{top}/web/robots.txt",))
    assert told == [
        *(".htaccess", "composer.json", "config/", "index.php", "web/index.php"),
        *("web/wp-content/db.php", "web/wp-content/sunrise.php", "web/wp-content/uploads/"),
    ]
    for number in range(200):
        (tmp_path / f"more-{number}").write_text("x")
    assert len(trees.left_out(top, content, VERSION, ())) == trees.MOST_TOLD


def renamed(name: str, **more: str) -> dict[str, str]:
    """The project with another name for its wp-content."""
    return {path.replace("web/app", name): text.replace("web/app", name) for path, text in PROJECT.items()} | more


@pytest.mark.parametrize(
    ("files", "content"),
    [
        (PROJECT, "web/app"),
        (renamed("public/content"), "public/content"),
        (renamed("content", **OTHER_CORE), "content"),
        ({**PROJECT, "composer.json": "{"}, "web/app"),
        ({**PROJECT, "composer.json": '{"extra": {"installer-paths": [7]}}'}, "web/app"),
        ({**PROJECT, "composer.json": "[" * 100_000}, "web/app"),
        ({"wp-content/plugins/a.php": "x", "composer.json": renamed("wp-content")["composer.json"]}, "wp-content"),
        ({"plugins/a.php": "x", "composer.json": renamed(".")["composer.json"]}, "."),
        ({"plugins/a.php": "x", "composer.json": renamed("../elsewhere")["composer.json"]}, "."),
        ({"plugins/a.php": "x", "composer.json": renamed("/etc")["composer.json"]}, "."),
        ({"plugins/a.php": "x", "composer.json": renamed("web/../../etc")["composer.json"]}, "."),
        ({**PROJECT, "composer.json": renamed("/web/app")["composer.json"]}, "web/app"),
        (
            renamed(
                "web/\x1b[2J", **{"plugins/a.php": "x", "composer.json": renamed("web/\\u001b[2J")["composer.json"]}
            ),
            ".",
        ),
        ({**PROJECT, "composer.json": renamed("\\ud800")["composer.json"]}, "web/app"),
        ({**PROJECT, "composer.json": renamed("a/" * 4000)["composer.json"]}, "web/app"),
    ],
)
def test_a_project_of_composers_says_where_its_content_is(
    files: Mapping[str, str], content: str, tmp_path: Path
) -> None:
    top, found = laid(tmp_path, files)
    assert os.path.relpath(found, top) == content


def test_a_link_is_no_content_of_a_project(tmp_path: Path) -> None:
    (tmp_path / "other" / "app" / "plugins").mkdir(parents=True)
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / "web").symlink_to(tmp_path / "other")
    assert project.content_of(str(tmp_path / "top")) is None


def test_a_link_in_the_place_of_the_usual_content_is_none(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "app").symlink_to("/etc")
    (tmp_path / "composer.json").write_text(PROJECT["composer.json"])
    assert project.content_of(str(tmp_path)) is None


def test_what_visitors_ask_for_of_a_project_comes_along_and_the_rest_is_told(tmp_path: Path) -> None:
    top, content = laid(tmp_path, PROJECT)
    extras = trees.extras_of(top, content, VERSION)
    assert extras == (f"{top}/web/favicon.ico",)
    told = trees.left_out(top, content, VERSION, extras)
    assert told == ["composer.json", "config/", "web/index.php", "web/wp/", "web/wp-config.php"]
    assert "its web/app/ is served as wp-content" in project.note(top, content)


def test_nothing_at_the_top_of_a_project_is_visitors(tmp_path: Path) -> None:
    top, content = laid(tmp_path, renamed("content", **{"README.md": "x"}))
    assert trees.extras_of(top, content, VERSION) == ()


@pytest.mark.parametrize(
    ("files", "has_composer", "is_refused"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"vendor/autoload.php": "<?php"}, False, False),
        ({"composer.json": "{}"}, False, False),
    ],
)
def test_a_project_without_its_packages_is_refused(
    files: Mapping[str, str], has_composer: bool, is_refused: bool, tmp_path: Path
) -> None:
    top, _ = laid(tmp_path, {**PROJECT, **files})
    with pytest.raises(run.Failure, match="composer install --no-dev") if is_refused else nullcontext() as failed:
        project.refuse_without_packages(top, has_composer=has_composer)
    assert not is_refused or failed.value.facts["trueup_code"] == "SOURCE_INCOMPLETE"
