"""Where code comes from: what a reference means when it is declared, and the archive that it is when it is released."""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from reconciler.core.actions import DeployRelease
from reconciler.core.errors import JobError, SourceRefused, SourceUnavailable
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobErrorCode
from reconciler.core.manifests import ObjectStore
from reconciler.settings import Settings
from reconciler.sources import objects
from reconciler.sources.downloads import download, refuse_unless_web
from reconciler.sources.git import Git, GitSource
from reconciler.sources.hosts import addresses_of
from reconciler.sources.objects import Objects, ObjectSource
from reconciler.sources.uploads import PREFIX, Uploads
from reconciler.storage.secret_store import Secrets

DOWNLOAD_S = 900.0
SourceType = Literal["git", "upload"]


class Sources:
    """Git repositories, uploads, web servers and object storage, as one control plane may ask them."""

    def __init__(
        self,
        settings: Settings,
        allowed_hosts: Collection[str],
        store: ObjectStore | None,
        cancel: threading.Event | None = None,
    ) -> None:
        self._allowed = allowed_hosts
        self._objects = Objects(store, Secrets(settings.secrets))
        self._cache = settings.home / "sources"
        self._most_bytes = settings.upload_max_mb << 20
        self._git = Git(settings.home, allowed_hosts, cancel)
        self._cancel = cancel
        self._uploads = uploads_of(settings)

    def resolve(self, source_type: SourceType, source_ref: str) -> str | None:
        """What the reference is now: a commit, an upload's sha256, an object's etag. None: known once it is fetched.

        Raises:
            SourceRefused: it isn't of a form that may be fetched.
            SourceUnavailable: it isn't there, or its host doesn't answer within seconds.
        """
        if source_type == "git":
            return self._git.resolve(GitSource.parse(source_ref))
        if source_ref.startswith(PREFIX):
            return self._uploads.find(source_ref).sha256
        if source_ref.startswith(objects.PREFIX):
            return self._objects.resolve(ObjectSource.parse(source_ref))
        refuse_unless_web(source_ref)
        return None

    @contextmanager
    def archive(self, source_type: SourceType, source_ref: str, revision: str | None) -> Iterator[tuple[Path, str]]:
        """The archive as a file of this host, and its sha256; a download is gone afterwards.

        Raises:
            SourceRefused, SourceUnavailable: as in ``resolve``.
        """
        if source_type == "git":
            source = GitSource.parse(source_ref)
            path = self._git.archive(source, revision or self._git.resolve(source), self._cache)
            yield path, _digest(path)
        elif source_ref.startswith(PREFIX):
            upload = self._uploads.find(source_ref)
            if revision not in {None, upload.sha256}:
                raise SourceRefused(f"{source_ref} has sha256 {upload.sha256}, but {revision} is declared.")
            yield self._uploads.path(upload), upload.sha256
        else:
            self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=self._cache) as work:
                path = Path(work) / "archive"
                self._download(source_ref, revision, path)
                yield path, _digest(path)

    def _download(self, source_ref: str, revision: str | None, path: Path) -> None:
        if source_ref.startswith(objects.PREFIX):
            self._objects.fetch(ObjectSource.parse(source_ref), revision, path, self._most_bytes)
        else:
            download(
                source_ref,
                path,
                allowed=self._allowed,
                most_bytes=self._most_bytes,
                timeout_s=DOWNLOAD_S,
                cancel=self._cancel,
            )


def uploads_of(settings: Settings) -> Uploads:
    return Uploads(settings.home / "uploads", settings.upload_max_mb << 20)


def sources_of(settings: Settings, fleet: Fleet, cancel: threading.Event | None = None) -> Sources:
    declared = fleet.platform.spec
    return Sources(settings, declared.imports.allowed_hosts, declared.sources.s3 or declared.backups, cancel)


def refuse_archive(url: str, fleet: Fleet) -> None:
    """Refuse an import's address that leads to an internal host, before a backup is taken for it.

    The node that fetches it looks again, at every redirect too; a name that only the node can resolve passes here.

    Raises:
        SourceRefused: it does, and no operator allowed that.
    """
    refuse_unless_web(url)
    parts = urlsplit(url)
    with suppress(SourceUnavailable):
        addresses_of(parts.hostname or "", parts.port or 0, fleet.platform.spec.imports.allowed_hosts)


@contextmanager
def release_archive(
    action: DeployRelease, settings: Settings, fleet: Fleet, cancel: threading.Event | None = None
) -> Iterator[dict[str, str]]:
    """What ``deploy.yml`` is given as ``trueup_release_archive``. ``cancel`` ends the fetching of it.

    Raises:
        JobError: the source may not be fetched, or cannot be had.
    """
    release = action.variables.release
    if release.source_type is None or release.source_ref is None:
        raise JobError(JobErrorCode.SOURCE_REFUSED, "spec.release has no source_ref. Add it.")
    try:
        archive = sources_of(settings, fleet, cancel).archive(release.source_type, release.source_ref, release.revision)
        with archive as (path, sha256):
            yield {"path": str(path), "sha256": sha256}
    except SourceRefused as error:
        raise JobError(JobErrorCode.SOURCE_REFUSED, error.message) from error
    except SourceUnavailable as error:
        raise JobError(JobErrorCode.SOURCE_UNAVAILABLE, error.message) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
