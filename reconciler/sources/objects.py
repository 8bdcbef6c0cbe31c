"""Code in S3-compatible storage: an object is named by ``s3://bucket/key``, and held by the etag that it had then."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from reconciler.core.errors import SourceRefused, SourceUnavailable
from reconciler.core.manifests import ObjectStore
from reconciler.storage.bucket import client_of
from reconciler.storage.secret_store import Secrets

PREFIX = "s3://"
_BLOCK = 1 << 20
_FORM = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([!-~]{1,1024})")
_GONE = frozenset({"404", "NoSuchKey", "NoSuchBucket"})
_CHANGED = frozenset({"412", "PreconditionFailed"})


@dataclass(frozen=True)
class ObjectSource:
    bucket: str
    key: str

    @classmethod
    def parse(cls, ref: str) -> Self:
        """Raises SourceRefused where ``ref`` names no object."""
        if not (match := _FORM.fullmatch(ref)):
            raise SourceRefused(f"{ref} names no object. Write s3://bucket/key.")
        return cls(*match.groups())

    def __str__(self) -> str:
        return f"{PREFIX}{self.bucket}/{self.key}"


class Objects:
    """The objects of one service. ``declared`` None: no service is configured, and every object is refused."""

    def __init__(self, declared: ObjectStore | None, secrets: Secrets) -> None:
        self._declared = declared
        self._secrets = secrets

    def resolve(self, source: ObjectSource) -> str:
        """The object's etag now.

        Raises:
            SourceRefused: no service is configured, or it does not let us read the object.
            SourceUnavailable: the object isn't there, or the service does not answer.
        """
        return str(self._ask("head_object", source)["ETag"]).strip('"')

    def fetch(self, source: ObjectSource, etag: str | None, target: Path, most_bytes: int) -> None:
        """Write the object to ``target``, as long as it is the one with ``etag``.

        Raises:
            SourceRefused: also where the object is another one by now, or too large.
            SourceUnavailable: also where it broke off.
        """
        answer = self._ask("get_object", source, **({"IfMatch": f'"{etag}"'} if etag else {}))
        if answer["ContentLength"] > most_bytes:
            raise SourceRefused(f"{source} is larger than {most_bytes >> 20} MiB.")
        try:
            with target.open("wb") as file:
                for block in answer["Body"].iter_chunks(_BLOCK):
                    file.write(block)
        except BotoCoreError as error:
            raise SourceUnavailable(f"{source} broke off. Try again.") from error

    def _ask(self, operation: str, source: ObjectSource, **conditions: str) -> Any:
        if self._declared is None:
            raise SourceRefused(f"{source} is in no storage that platform.yaml names. Set spec.sources.s3.")
        client = client_of(self._declared, self._secrets)
        try:
            return getattr(client, operation)(Bucket=source.bucket, Key=source.key, **conditions)
        except ClientError as error:
            raise _refusal(source, str(error.response.get("Error", {}).get("Code"))) from error
        except BotoCoreError as error:
            raise SourceUnavailable(f"The storage of {source} does not answer: {type(error).__name__}.") from error


def _refusal(source: ObjectSource, code: str) -> SourceRefused | SourceUnavailable:
    if code in _GONE:
        return SourceUnavailable(f"{source} is not there. Check bucket and key.")
    if code in _CHANGED:
        return SourceRefused(f"{source} is not the object that was declared any more. Deploy it again.")
    return SourceRefused(f"The storage does not give {source} to us: {code}. Look at the rights of spec.sources.s3.")
