"""Archives that were sent to the API: kept on this host, whole or not at all, each under an id and with its sha256."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

from reconciler.core.errors import DiskFull, Invalid, SourceUnavailable, UploadTooLarge

PREFIX = "upload:"
RESERVE = 256 << 20
"""Bytes of the disk that an upload leaves free: the store and the records are on it too."""
_FIRST = (b"\x1f\x8b", b"PK\x03\x04")


@dataclass(frozen=True)
class Upload:
    upload_id: UUID
    sha256: str
    size_bytes: int

    @property
    def source_ref(self) -> str:
        return f"{PREFIX}{self.upload_id}"


class Uploads:
    """The directory of them."""

    def __init__(self, directory: Path, most_bytes: int) -> None:
        self._directory = directory
        self._most_bytes = most_bytes

    async def receive(self, upload_id: UUID, declared: int | None, chunks: AsyncIterator[bytes]) -> Upload:
        """Keep what comes in; nothing of it stays when the sender breaks off.

        Raises:
            UploadTooLarge: it is larger than the limit.
            DiskFull: this host has no room for it.
            Invalid: it is empty, or neither .tar.gz nor .zip.
        """
        if declared is not None and declared > self._most_bytes:
            raise self._too_large()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(self._directory).free < (declared or 0) + RESERVE:
            raise _full()
        draft = self._directory / f".{upload_id}.part"
        try:
            digest, size = await self._write(draft, chunks)
            upload = Upload(upload_id, digest, size)
            self._path(upload_id, ".json").write_text(json.dumps(asdict(upload), default=str), encoding="utf-8")
            draft.rename(self._path(upload_id))
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise _full() from error
            raise
        finally:
            draft.unlink(missing_ok=True)
            if not self._path(upload_id).exists():
                self._path(upload_id, ".json").unlink(missing_ok=True)
        return upload

    def find(self, source_ref: str) -> Upload:
        """The upload that ``upload:<id>`` names.

        Raises:
            SourceUnavailable: it isn't here.
        """
        try:
            upload_id = UUID(source_ref.removeprefix(PREFIX))
            kept = json.loads(self._path(upload_id, ".json").read_text(encoding="utf-8"))
            if not self._path(upload_id).exists():
                raise FileNotFoundError(upload_id)
        except (ValueError, FileNotFoundError) as error:
            raise SourceUnavailable("No such upload is here. Send the archive with POST /api/uploads first.") from error
        return Upload(upload_id, kept["sha256"], kept["size_bytes"])

    def path(self, upload: Upload) -> Path:
        return self._path(upload.upload_id)

    def discard(self, upload: Upload) -> None:
        """It goes; nothing when it is gone already."""
        for suffix in ("", ".json"):
            self._path(upload.upload_id, suffix).unlink(missing_ok=True)

    def sweep(self) -> None:
        """What a killed process left half-written goes."""
        for path in self._directory.glob(".*.part"):
            path.unlink(missing_ok=True)

    async def _write(self, draft: Path, chunks: AsyncIterator[bytes]) -> tuple[str, int]:
        digest, size, first = hashlib.sha256(), 0, b""
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > self._most_bytes:
                    raise self._too_large()
                first = (first + chunk)[:4] if len(first) < 4 else first
                digest.update(chunk)
                await asyncio.to_thread(file.write, chunk)
            if not first.startswith(_FIRST):
                raise Invalid("The body is neither .tar.gz nor .zip. Send the archive itself, not a form.")
            file.flush()
            await asyncio.to_thread(os.fsync, file.fileno())
        return digest.hexdigest(), size

    def _path(self, upload_id: UUID, suffix: str = "") -> Path:
        return self._directory / f"{upload_id}{suffix}"

    def _too_large(self) -> UploadTooLarge:
        limit = self._most_bytes // (1 << 20)
        return UploadTooLarge(f"The upload is larger than {limit} MiB (TRUEUP_UPLOAD_MAX_MB). Send less.")


def _full() -> DiskFull:
    return DiskFull(
        "The control plane's disk has no room for this upload. Nothing was kept. Free space, then send again."
    )
