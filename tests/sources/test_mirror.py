"""The mirror's answers as this host understands them, and a core that it learns from one."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.artifacts import pins as artifacts
from reconciler.artifacts.learned import can_be_fetched, learn
from reconciler.core.errors import ArtifactError, SourceRefused, SourceUnavailable
from reconciler.core.manifests import Imports, Platform, PlatformSpec, Updates
from reconciler.core.updates import Extension, Installed, choose_core
from reconciler.sources.mirror import Mirror
from tests.lab.mirror import Mirror as Server
from tests.lab.mirror import update_mirror, zipped

THERE = Installed(
    release="r",
    wordpress_version="6.5.5",
    plugins={
        "free/free.php": Extension(name="Free", version="1.0", headers={"Name": "Free", "Version": "1.0"}),
        "own/own.php": Extension(name="Own", version="1.0", update_uri="false", headers={"Version": "1.0"}),
    },
    themes={"plain": Extension(name="Plain", version="1.0", headers={"Name": "Plain", "Version": "1.0"})},
)
CORE = {
    "index.php": b"<?php\n",
    "wp-includes/version.php": b"<?php\n$wp_version = '6.6';\n",
    "wp-content/index.php": b"<?php\n",
}


@pytest.fixture
def server() -> Iterator[Server]:
    with update_mirror("127.0.0.1") as server:
        yield server


def client(url: str, *, allowed: tuple[str, ...] = (), most_bytes: int = 1 << 20) -> Mirror:
    spec = PlatformSpec(updates=Updates(mirror=url), imports=Imports(allowed_hosts=allowed))
    return Mirror(Platform(apiVersion="trueup/v1", kind="Platform", spec=spec), most_bytes)


def test_it_is_asked_as_wordpress_asks(server: Server) -> None:
    server.publish_core("7.1.1", CORE)
    server.publish_plugin("free", "1.1", "")
    server.publish_plugin("own", "9.9", "")
    mirror = client(server.url)
    offer = choose_core(THERE, mirror.core(THERE, "8.2"), "8.2")
    assert offer is not None
    assert (offer.version, offer.url) == ("7.1.1", f"{server.url}/release/wordpress-7.1.1.zip")
    assert {key: one.new_version for key, one in mirror.extensions("plugins", THERE).items()} == {
        "free/free.php": "1.1"
    }
    assert mirror.extensions("themes", THERE) == {}
    assert mirror.checksums("7.1.1", THERE).keys() == CORE.keys()


def test_packages_come_within_limits_and_from_hosts_that_may_be_asked(server: Server, tmp_path: Path) -> None:
    server.publish_plugin("free", "1.1", "")
    url, target = f"{server.url}/plugins/free.1.1.zip", tmp_path / "package"
    client(server.url).fetch(url, target)
    assert target.read_bytes() == server.plugins["free"]["1.1"]
    with pytest.raises(SourceRefused, match="larger"):
        client(server.url, most_bytes=10).fetch(url, target)
    for elsewhere in ("http://169.254.169.254/p.zip", "http://10.0.0.1/p.zip", "http://[::1]/p.zip"):
        with pytest.raises(SourceRefused, match="internal"):
            client(server.url).fetch(elsewhere, target)
    with pytest.raises(SourceRefused, match="not https"):
        client("https://mirror.example.com").fetch("http://mirror.example.com/p.zip", target)
    with pytest.raises(SourceUnavailable, match="404"):
        client(server.url).fetch(f"{server.url}/plugins/none.1.zip", target)


def test_only_a_mirror_that_somebody_named_may_be_internal() -> None:
    """The default's name is not ours to trust, wherever it leads."""
    by_default = Platform(apiVersion="trueup/v1", kind="Platform")
    assert Mirror(by_default, 1).own_hosts == frozenset()
    assert client("http://10.0.0.1:8080/api").own_hosts == {"10.0.0.1"}


@pytest.mark.parametrize("says", [b"", b"<html>", b"[]", b'{"offers": {"a": 1}}', b"\xff\xfe", b'{"plugins": "x"}'])
def test_nonsense_is_told_as_such(server: Server, says: bytes) -> None:
    server.says = says
    for ask in (lambda one: one.core(THERE, "8.2"), lambda one: one.extensions("plugins", THERE)):
        with pytest.raises(SourceUnavailable, match="cannot be understood"):
            ask(client(server.url))


def _package(tmp_path: Path, files: dict[str, bytes]) -> Path:
    path = tmp_path / "core.zip"
    path.write_bytes(zipped({f"wordpress/{name}": data for name, data in files.items()}))
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TRUEUP_CACHE", raising=False)
    return tmp_path / "artifacts"


def _checksums(server: Server, version: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(server.get("/core/checksums/1.0/", {"version": [version]}) or b"")["checksums"]
    return found


def test_a_core_is_learned_once_and_is_then_a_pin(server: Server, tmp_path: Path, cache: Path) -> None:
    server.publish_core("6.6", CORE)
    checksums = _checksums(server, "6.6")
    assert not can_be_fetched("6.6", cache)
    digest = learn("6.6", _package(tmp_path, CORE), lambda: checksums, cache)
    assert can_be_fetched("6.6", cache)
    archive = artifacts.fetch_wordpress("6.6", cache)
    assert archive.content_digest == digest
    assert artifacts.host_variables(cache)["wordpress"]["6.6"]["path"] == str(archive.path)
    assert "7.1.1" in artifacts.known_versions(artifacts.pins_of(cache))
    # Lost, it is learned again as the same, and never as another.
    archive.path.unlink()
    assert not can_be_fetched("6.6", cache)
    other = {**CORE, "index.php": b"<?php evil();"}
    server.publish_core("6.6", other)
    with pytest.raises(ArtifactError, match="another than the one that was learned"):
        learn("6.6", _package(tmp_path, other), lambda: _checksums(server, "6.6"), cache)
    assert learn("6.6", _package(tmp_path, CORE), lambda: checksums, cache) == digest
    assert can_be_fetched("6.6", cache)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({**CORE, "index.php": b"changed"}, "index.php"),
        ({**CORE, "wp-admin/added.php": b"<?php"}, "wp-admin/added.php"),
        ({**CORE, "wp-config.php": b"<?php"}, "wp-config.php"),
        ({name: data for name, data in CORE.items() if name != "index.php"}, "index.php"),
        ({**CORE, "wp-includes/version.php": b"<?php\n$wp_version = '6.7';\n"}, "holds 6.7"),
        ({"index.php": b""}, "holds no WordPress"),
    ],
)
def test_a_core_that_is_not_what_it_says(
    server: Server, tmp_path: Path, cache: Path, files: dict[str, bytes], message: str
) -> None:
    server.publish_core("6.6", CORE)
    with pytest.raises(ArtifactError, match=message):
        learn("6.6", _package(tmp_path, files), lambda: _checksums(server, "6.6"), cache)
    assert not can_be_fetched("6.6", cache)


def test_a_core_without_checksums_is_not_taken(tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ArtifactError, match="no checksums"):
        learn("6.6", _package(tmp_path, CORE), dict, cache)
    (tmp_path / "text").write_bytes(b"PK no archive")
    with pytest.raises(ArtifactError, match="no whole archive"):
        learn("6.6", tmp_path / "text", dict, cache)
