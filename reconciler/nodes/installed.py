"""Reads what one release of an environment is made of and prints one line of JSON, the fields of ``updates.Installed``.

Sent to ``python3 -I -S -`` on the node, so: standard library only, Python 3.9 or later, one file. It runs nothing of
the site and follows no link. ``argv[1]`` is JSON: ``environment``, ``release`` to look at (null: the one that is
served), ``next``: the release that an update makes, to tell whether it was rehearsed already.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

SITES = "/var/www/sites"
HEAD = 8192
"""WordPress looks for a header in so many bytes."""
PLUGIN = {
    "Name": "Plugin Name",
    "PluginURI": "Plugin URI",
    "Version": "Version",
    "Author": "Author",
    "AuthorURI": "Author URI",
    "TextDomain": "Text Domain",
    "RequiresWP": "Requires at least",
    "RequiresPHP": "Requires PHP",
    "UpdateURI": "Update URI",
}
THEME = {
    "Name": "Theme Name",
    "Title": "Theme Name",
    "Version": "Version",
    "Author": "Author",
    "Author URI": "Author URI",
    "UpdateURI": "Update URI",
    "Template": "Template",
}
MOST = 2000
"""Plugins or themes: a directory with more is not looked through."""


def main(options: dict[str, Any]) -> dict[str, Any]:
    site = f"{SITES}/{options['environment']}"
    wanted = f"{site}/releases/{options['release']}" if options.get("release") else ""
    release = wanted if os.path.isdir(wanted) else os.path.realpath(f"{site}/current")
    return {
        "release": os.path.basename(release),
        "wordpress_version": _core(release),
        "plugins": _plugins(f"{release}/wp-content/plugins"),
        "themes": _themes(f"{release}/wp-content/themes"),
        "prepared": _prepared(f"{site}/releases/{options.get('next')}"),
    }


def _core(release: str) -> str:
    found = re.search(r"^\$wp_version = '([^']+)';", _head(f"{release}/wp-includes/version.php"), re.MULTILINE)
    if not found:
        raise SystemExit(f"{release} holds no WordPress.")
    return found.group(1)


def _prepared(release: str) -> dict[str, Any] | None:
    try:
        with open(f"{release}.update", encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return None
    return found if os.path.isdir(release) else None


def _plugins(top: str) -> dict[str, Any]:
    """By main file: any ``.php`` at the top or one directory down that has a header, as WordPress finds them."""
    found = {}
    for name in _names(top):
        path = f"{top}/{name}"
        inner = [f"{name}/{one}" for one in _names(path)] if os.path.isdir(path) else [name]
        for key in inner:
            if key.endswith(".php") and _is_file(f"{top}/{key}"):
                headers = _headers(f"{top}/{key}", PLUGIN)
                if headers.get("Name"):
                    found[key] = _told(headers, path)
    return found


def _themes(top: str) -> dict[str, Any]:
    found = {}
    for name in _names(top):
        if _is_file(f"{top}/{name}/style.css"):
            headers = _headers(f"{top}/{name}/style.css", THEME)
            if headers.get("Name"):
                found[name] = _told({**headers, "Stylesheet": name, "Template": headers["Template"] or name}, name)
                found[name]["checkout"] = _is_checkout(f"{top}/{name}")
    return found


def _told(headers: dict[str, str], path: str) -> dict[str, Any]:
    return {
        "name": headers["Name"],
        "version": headers["Version"],
        "update_uri": headers["UpdateURI"],
        "headers": headers,
        "checkout": _is_checkout(path),
    }


def _is_checkout(path: str) -> bool:
    return any(os.path.lexists(f"{path}/{name}") for name in (".git", ".svn", ".hg"))


def _names(directory: str) -> list[str]:
    if os.path.islink(directory) or not os.path.isdir(directory):
        return []
    return [name for name in sorted(os.listdir(directory))[:MOST] if not name.startswith(".")]


def _is_file(path: str) -> bool:
    return os.path.isfile(path) and not os.path.islink(path)


def _head(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read(HEAD).decode("utf-8", "replace").replace("\r", "\n")
    except OSError:
        return ""


def _headers(path: str, fields: dict[str, str]) -> dict[str, str]:
    text = _head(path)
    return {name: _header(text, label) for name, label in fields.items()}


def _header(text: str, label: str) -> str:
    found = re.search(rf"^(?:[ \t]*<\?php)?[ \t/*#@]*{re.escape(label)}:(.*)$", text, re.MULTILINE | re.IGNORECASE)
    return re.sub(r"\s*(?:\*/|\?>).*", "", found.group(1)).strip()[:500] if found else ""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(json.loads(sys.argv[1])), separators=(",", ":")) + "\n")
