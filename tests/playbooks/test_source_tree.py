"""What a source lacks, and what of it goes into no release: trees of this host, as they are unpacked on a node."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.playbooks.node_modules import load

trees = load("release.source_tree")
run = load("environment.run")
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
MODULES = """[submodule "shop"]
\tpath = wp-content/plugins/shop
\turl = https://git.example.com/shop.git
"""
VERSION = "7.1.1"


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
