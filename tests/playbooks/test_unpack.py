"""Hostile archives: each is refused with its own code, and nothing lands outside of the target."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.playbooks.node_modules import load

unpacking = load("site_import.unpack")
Failure = load("environment.run").Failure


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zipped(name: str, data: bytes = b"x", mode: int = 0o100644) -> bytes:
    packed = io.BytesIO()
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(info, data)
    return packed.getvalue()


GOOD = tar((member("a/b.php"), b"<?php"))
HOSTILE = {
    "traversal": (tar((member("a/../../evil"), b"x")), "ARCHIVE_UNSAFE"),
    "absolute": (tar((member("/tmp/evil"), b"x")), "ARCHIVE_UNSAFE"),
    "device": (tar((member("null", tarfile.CHRTYPE), b"")), "ARCHIVE_UNSAFE"),
    "fifo": (tar((member("pipe", tarfile.FIFOTYPE), b"")), "ARCHIVE_UNSAFE"),
    "hard link": (tar((member("hosts", tarfile.LNKTYPE, "/etc/hosts"), b"")), "ARCHIVE_UNSAFE"),
    "link out": (tar((member("out", tarfile.SYMTYPE, "../../.."), b"")), "ARCHIVE_UNSAFE"),
    "link over a link": (
        tar((member("a", tarfile.SYMTYPE, "."), b""), (member("a/b", tarfile.SYMTYPE, "../.."), b"")),
        "ARCHIVE_UNSAFE",
    ),
    "zip traversal": (zipped("../evil"), "ARCHIVE_UNSAFE"),
    "zip link": (zipped("out", b"/etc", 0o120777), "ARCHIVE_UNSAFE"),
    "bomb": (tar((member("zeros"), bytes(3 << 20))), "ARCHIVE_TOO_LARGE"),
    "zip bomb": (zipped("zeros", bytes(3 << 20)), "ARCHIVE_TOO_LARGE"),
    "many": (tar(*((member(f"f{n}"), b"") for n in range(60))), "ARCHIVE_TOO_LARGE"),
    "truncated": (GOOD[:-12], "ARCHIVE_INVALID"),
    "no archive": (b"<html>not found</html>", "ARCHIVE_INVALID"),
    "no zip": (b"PK\x03\x04" + bytes(40), "ARCHIVE_INVALID"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused(name: str, tmp_path: Path) -> None:
    data, code = HOSTILE[name]
    archive, target = tmp_path / "archive", tmp_path / "in" / "target"
    archive.write_bytes(data)
    target.mkdir(parents=True)
    with pytest.raises(Failure) as caught:
        unpacking.unpack(str(archive), str(target), most_bytes=2 << 20, most_members=50)
    assert caught.value.facts["trueup_code"] == code
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "in"}
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["target"]


@pytest.mark.parametrize("data", [GOOD, zipped("a/b.php", b"<?php")])
def test_a_good_one_is_unpacked(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(data)
    (tmp_path / "target").mkdir()
    unpacking.unpack(str(tmp_path / "archive"), str(tmp_path / "target"))
    assert (tmp_path / "target/a/b.php").read_bytes() == b"<?php"
