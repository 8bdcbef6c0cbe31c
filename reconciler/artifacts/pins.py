"""WordPress and WP-CLI at pinned versions: fetched once, checked against ``pins.yaml``, kept in a cache.

Nodes never download code: they are given these archives. What is in the cache is what its pin says, whichever
source it came from. Nothing of an archive is written to disk before all of it has been read and checked.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from reconciler.artifacts.archives import digest_of_tree, member_of, pack, tree_of
from reconciler.core.errors import ArtifactError

SourceName = Literal["wordpress.org", "github", "npm"]
SOURCES: tuple[SourceName, ...] = get_args(SourceName)
Progress = Callable[[str], None]

MAX_DOWNLOAD_BYTES = 400 << 20
NPM_TIMEOUT_S = 900
READ_TIMEOUT_S = 30


class _Pin(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Pin):
    """Where one artifact can be had: a URL or an npm package, and the path inside the archive that comes."""

    url: str | None = None
    package: str | None = None
    path: str | None = None


class WordPressPin(_Pin):
    content_digest: str
    sources: dict[SourceName, Source]


class WpCliPin(_Pin):
    version: str
    sha512: str
    sources: dict[SourceName, Source]


class Pins(_Pin):
    wordpress: dict[str, WordPressPin]
    wp_cli: WpCliPin


LEARNED = "learned.json"
"""In a cache: pins of versions that a mirror gave and that no pin of ours knows."""


@dataclass(frozen=True)
class Archive:
    """A verified file in the cache."""

    path: Path
    version: str
    sha256: str
    content_digest: str
    """Of a WordPress archive the digest of its tree; of WP-CLI, one file, its sha512."""


def read_pins(path: Path | None = None) -> Pins:
    """The pins: of ``path``, else of the file that ``TRUEUP_ARTIFACT_PINS`` names, else ours."""
    named = path or os.environ.get("TRUEUP_ARTIFACT_PINS") or Path(__file__).with_name("pins.yaml")
    try:
        document = YAML(typ="safe").load(Path(named).read_text("utf-8"))
        return Pins.model_validate(document)
    except (OSError, YAMLError, ValidationError, UnicodeDecodeError) as error:
        raise ArtifactError(f"The pins in {named} cannot be read: {error}. Correct the file.") from error


def pins_of(cache: Path) -> Pins:
    """Ours, and those of core versions that this cache learned from a mirror; ours win. See ``learned``."""
    pins = read_pins()
    learned = cache / LEARNED
    if not learned.exists():
        return pins
    found = read_pins(learned)
    return pins.model_copy(update={"wordpress": {**found.wordpress, **pins.wordpress}})


def known_versions(pins: Pins | None = None) -> tuple[str, ...]:
    """The WordPress versions that can be had, newest first."""
    return tuple(sorted((pins or read_pins()).wordpress, key=_version_key, reverse=True))


def configured_sources(text: str | None = None) -> tuple[SourceName, ...]:
    """The sources in the order in which they are asked: of ``text``, else of ``TRUEUP_ARTIFACT_SOURCES``, else all."""
    named = text if text is not None else os.environ.get("TRUEUP_ARTIFACT_SOURCES", "")
    return tuple(_source_name(name.strip()) for name in named.split(",") if name.strip()) or SOURCES


def fetch_wordpress(
    version: str,
    cache: Path,
    *,
    sources: Sequence[SourceName] | None = None,
    pins: Pins | None = None,
    progress: Progress | None = None,
) -> Archive:
    """The archive of one WordPress version, fetched if ``cache`` doesn't have it whole.

    Raises ArtifactError when no source gives what the pin says. Callers in other processes wait for the first.
    """
    pins = pins or pins_of(cache)
    pin = pins.wordpress.get(version)
    if pin is None:
        raise ArtifactError(
            f"WordPress {version} has no pin, so what it must contain is unknown. "
            f"Known: {', '.join(known_versions(pins))}. Choose one of them or add a pin."
        )

    def fetch(source: Source) -> bytes:
        stream, name = download(source, report)
        tree = tree_of(stream, name, source.path or "")
        _expect(digest_of_tree(tree), pin.content_digest, f"WordPress {version}")
        report(f"Packing WordPress {version}")
        return pack(tree)

    def check(archive: bytes) -> None:
        tree = tree_of(io.BytesIO(archive), f"wordpress-{version}.tar.gz", "wordpress")
        _expect(digest_of_tree(tree), pin.content_digest, f"WordPress {version}")

    report = progress or _say_nothing
    return _obtain(_wanted(version, pin.content_digest), cache, pin.sources, sources, fetch, check, report)


def keep_wordpress(version: str, archive: bytes, content_digest: str, cache: Path) -> Archive:
    """Put a checked archive of a WordPress version into the cache, for ``fetch_wordpress`` to find."""
    wanted = _wanted(version, content_digest)
    with locked(cache, wanted.filename):
        kept = _keep(cache.absolute() / wanted.filename, wanted, archive)
    _to_shared_cache(wanted, cache, archive)
    return kept


def _wanted(version: str, content_digest: str) -> _Wanted:
    return _Wanted(f"WordPress {version}", f"wordpress-{version}.tar.gz", version, content_digest)


def fetch_wp_cli(
    cache: Path,
    *,
    sources: Sequence[SourceName] | None = None,
    pins: Pins | None = None,
    progress: Progress | None = None,
) -> Archive:
    """The pinned WP-CLI phar, fetched if ``cache`` doesn't have it whole; else as ``fetch_wordpress``."""
    pin = (pins or read_pins()).wp_cli
    report = progress or _say_nothing

    def fetch(source: Source) -> bytes:
        stream, name = download(source, report)
        phar = member_of(stream, name, source.path) if source.path else stream.read()
        check(phar)
        return phar

    def check(phar: bytes) -> None:
        _expect(hashlib.sha512(phar).hexdigest(), pin.sha512, f"WP-CLI {pin.version}")

    what = _Wanted(f"WP-CLI {pin.version}", f"wp-cli-{pin.version}.phar", pin.version, pin.sha512)
    return _obtain(what, cache, pin.sources, sources, fetch, check, report)


def host_variables(cache: Path, pins: Pins | None = None) -> dict[str, Any]:
    """``trueup_artifacts``: the archives that ``cache`` has, and nothing that it hasn't. Downloads nothing."""
    pins = pins or pins_of(cache)
    variables: dict[str, Any] = {"wordpress": {}}
    for version, pin in sorted(pins.wordpress.items()):
        archive = _noted(cache / f"wordpress-{version}.tar.gz", version, pin.content_digest)
        if archive:
            variables["wordpress"][version] = {"path": str(archive.path), "sha256": archive.sha256}
    phar = _noted(cache / f"wp-cli-{pins.wp_cli.version}.phar", pins.wp_cli.version, pins.wp_cli.sha512)
    if phar:
        variables["wp_cli"] = {"version": phar.version, "path": str(phar.path), "sha256": phar.sha256}
    return variables


# The cache: an archive and, written after it, a note of what was verified.


@dataclass(frozen=True)
class _Wanted:
    name: str
    filename: str
    version: str
    content_digest: str


def _obtain(
    wanted: _Wanted,
    cache: Path,
    offered: Mapping[SourceName, Source],
    order: Sequence[SourceName] | None,
    fetch: Callable[[Source], bytes],
    check: Callable[[bytes], None],
    report: Progress,
) -> Archive:
    path = cache.absolute() / wanted.filename
    with locked(cache, wanted.filename):
        kept = _noted(path, wanted.version, wanted.content_digest)
        if kept and _sha256_of(path) == kept.sha256:
            return kept
        data = _from_shared_cache(wanted, cache, check)
        if data is None:
            data = _from_sources(wanted, offered, order or configured_sources(), fetch, report)
            _to_shared_cache(wanted, cache, data)
        return _keep(path, wanted, data)


def _from_sources(
    wanted: _Wanted,
    offered: Mapping[SourceName, Source],
    order: Sequence[SourceName],
    fetch: Callable[[Source], bytes],
    report: Progress,
) -> bytes:
    refusals = []
    for name in order:
        if name not in offered:
            continue
        report(f"Fetching {wanted.name} from {name}")
        try:
            return fetch(offered[name])
        except ArtifactError as refusal:
            refusals.append(f"{name}: {refusal}")
            report(refusals[-1])
    said = " ".join(refusals) or "None of them offers it."
    raise ArtifactError(
        f"{wanted.name} could not be fetched from {', '.join(order)}. {said} "
        "Check the network, or set TRUEUP_ARTIFACT_SOURCES to a source that this host can reach."
    )


def _noted(path: Path, version: str, content_digest: str) -> Archive | None:
    """The archive as its note describes it; None where note, size or pin disagree."""
    try:
        note = json.loads(_note_of(path).read_text())
        same = note["content_digest"] == content_digest and note["size"] == path.stat().st_size
        return Archive(path.absolute(), version, str(note["sha256"]), content_digest) if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(path: Path, wanted: _Wanted, data: bytes) -> Archive:
    """Archive first, note second: a crash in between leaves an archive that is not yet believed."""
    sha256 = hashlib.sha256(data).hexdigest()
    note = {"content_digest": wanted.content_digest, "sha256": sha256, "size": len(data)}
    try:
        _note_of(path).unlink(missing_ok=True)
        write_whole(path, data)
        write_whole(_note_of(path), json.dumps(note, sort_keys=True).encode() + b"\n")
    except OSError as error:
        raise ArtifactError(f"{wanted.name} could not be kept in {path.parent}: {error}. Make room there.") from error
    return Archive(path, wanted.version, sha256, wanted.content_digest)


def _note_of(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def write_whole(path: Path, data: bytes) -> None:
    """All of it at ``path``, durable, or nothing."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def locked(cache: Path, filename: str) -> Iterator[None]:
    try:
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (cache / f".{filename}.lock").open("w")
    except OSError as error:
        raise ArtifactError(f"The cache {cache} cannot be used: {error}. Correct its permissions.") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for abandoned in cache.glob(f".{filename}.*"):
            if not abandoned.name.endswith(".lock"):
                abandoned.unlink(missing_ok=True)
        yield


def _shared_cache(cache: Path) -> Path | None:
    """``TRUEUP_CACHE``: a directory that several homes share, so that each needn't download the same."""
    named = os.environ.get("TRUEUP_CACHE")
    shared = Path(named) / "artifacts" if named else None
    return shared if shared and shared.absolute() != cache.absolute() else None


def _from_shared_cache(wanted: _Wanted, cache: Path, check: Callable[[bytes], None]) -> bytes | None:
    shared = _shared_cache(cache)
    try:
        if shared is None:
            return None
        data = (shared / wanted.filename).read_bytes()
        check(data)
    except (OSError, ArtifactError):
        return None
    return data


def _to_shared_cache(wanted: _Wanted, cache: Path, data: bytes) -> None:
    shared = _shared_cache(cache)
    if shared is not None:
        with locked(shared, wanted.filename):
            _keep(shared.absolute() / wanted.filename, wanted, data)


def download(source: Source, report: Progress) -> tuple[io.BufferedIOBase, str]:
    """What a source gives, unchecked, and a name for it."""
    if source.package:
        return _npm_pack(source.package)
    return _get(source.url or "", report)


def _npm_pack(package: str) -> tuple[io.BufferedIOBase, str]:
    """The package's archive, by the npm client as this host has it set up. No script of the package runs."""
    npm = shutil.which("npm")
    if npm is None:
        raise ArtifactError("The npm client is not installed. Install it or use another source.")
    with tempfile.TemporaryDirectory(prefix="trueup-npm-") as directory:
        argv = [npm, "pack", "--ignore-scripts", "--silent", "--pack-destination", directory, "--", package]
        try:
            done = subprocess.run(
                argv, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, timeout=NPM_TIMEOUT_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ArtifactError(f"npm did not deliver {package} within {NPM_TIMEOUT_S} s.") from error
        packed = list(Path(directory).glob("*.tgz"))
        if done.returncode != 0 or len(packed) != 1:
            said = done.stderr.decode(errors="replace").strip()[-500:]
            raise ArtifactError(f"npm gave no {package} (status {done.returncode}). {said}".rstrip())
        return packed[0].open("rb"), package  # an open file outlives its name


def _get(url: str, report: Progress) -> tuple[io.BufferedIOBase, str]:
    """The body of ``url``, https on every hop."""
    if not url.startswith("https://"):
        raise ArtifactError(f"{url} is not https.")
    body = io.BytesIO()
    try:
        with _https_only().open(url, timeout=READ_TIMEOUT_S) as response:
            while chunk := response.read(1 << 20):
                body.write(chunk)
                report(f"{body.tell() >> 20} MiB of {url}")
                if body.tell() > MAX_DOWNLOAD_BYTES:
                    raise ArtifactError(f"{url} is larger than {MAX_DOWNLOAD_BYTES >> 20} MiB.")
    except (OSError, urllib.error.URLError, EOFError) as error:
        raise ArtifactError(f"{url} did not answer: {error}.") from error
    body.seek(0)
    return body, url


def _https_only() -> urllib.request.OpenerDirector:
    """An opener without any handler for other schemes, so that a redirect cannot leave https."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(context=ssl.create_default_context()),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _expect(digest: str, pinned: str, name: str) -> None:
    if digest != pinned:
        raise ArtifactError(f"{name} is not what was pinned: {digest[:16]}… instead of {pinned[:16]}….")


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _source_name(name: str) -> SourceName:
    for known in SOURCES:
        if name == known:
            return known
    raise ArtifactError(f"TRUEUP_ARTIFACT_SOURCES names {name!r}, which is no source. Known: {', '.join(SOURCES)}.")


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _say_nothing(message: str) -> None:
    """The progress report of a caller that wants none."""
