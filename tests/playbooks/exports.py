"""Exports of sites for tests: made of parts, packed like anybody would, or wrongly on purpose."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping

PARTS = ("options", "posts", "users", "usermeta")


def dump(prefix: str = "wp_", more: str = "") -> str:
    """The smallest dump that is a WordPress."""
    tables = "".join(f"CREATE TABLE `{prefix}{part}` (id INT);\n" for part in PARTS)
    return f"-- A dump; it's small\n/*!40101 SET NAMES utf8mb4 */;\n{tables}{more}"


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, link
    return found


def tarred(files: Mapping[str, str | bytes], *more: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in files.items():
            data = text if isinstance(text, bytes) else text.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in more:
            tar.addfile(info)
    return buffer.getvalue()


def packed(files: Mapping[str, str | bytes], *more: tarfile.TarInfo) -> bytes:
    return gzip.compress(tarred(files, *more), 6)


def whole(**more: str | bytes) -> dict[str, str | bytes]:
    """The members of a good export; keywords replace them, `__` standing for `/`."""
    base: dict[str, str | bytes] = {
        "meta.json": json.dumps({"source_url": "https://old.example"}),
        "db.sql": dump(),
        "files/plugins/a/a.php": "<?php",
        "files/uploads/b.txt": "b",
    }
    return base | {name.replace("__", "/"): text for name, text in more.items()}
