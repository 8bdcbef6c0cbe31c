"""S3-compatible storage. Nodes never see its credentials: they get addresses that are valid for a while."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
)
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from reconciler.addresses import connected
from reconciler.core.errors import ObjectUnusable, StorageError
from reconciler.core.manifests import ObjectStore
from reconciler.core.manifests import Storage as Declared
from reconciler.storage.secret_store import Secrets

VALID_S = 12 * 3600
"""How long an address may be used: longer than any job may take."""
SMALL = 1 << 20
"""Bytes of an object that is read whole: a manifest has no more."""
NO_SUCH_KEY = "NoSuchKey"
"""Not so "NoSuchBucket", or "AccessDenied": then nobody knows what became of the object."""


@dataclass(frozen=True)
class Upload:
    """A multipart upload that was begun, with an address for each part, the first part's first."""

    key: str
    id: str
    urls: tuple[str, ...]


def client_of(declared: ObjectStore, secrets: Secrets) -> Any:
    """A boto3 client of the service, with the keys that the secret holds.

    Raises:
        NotFound: there is no such secret.
    """
    credentials = secrets.get(declared.credentials)
    client = boto3.client(
        "s3",
        endpoint_url=declared.endpoint,
        region_name=declared.region,
        aws_access_key_id=credentials.get("access_key"),
        aws_secret_access_key=credentials.get("secret_key"),
        # Without s3v4 presigned addresses come out in the old form, which many services refuse.
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            connect_timeout=5,
            read_timeout=60,
            retries={"max_attempts": 3},
        ),
    )
    # botocore has no word for this: where its connections come from.
    session = client._endpoint.http_session
    session._manager.pool_classes_by_scheme = session._pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return client


class _Checked:
    """A connection to an address of the service that was checked."""

    def _new_conn(self: Any) -> socket.socket:
        try:
            return connected(self._dns_host, self.port, self.timeout)
        except TimeoutError as error:
            raise ConnectTimeoutError(self, f"no connection within {self.timeout} s") from error
        except (OSError, UnicodeError) as error:
            raise NewConnectionError(self, str(error)) from error


class _Connection(_Checked, AWSHTTPConnection):  # type: ignore[misc]
    pass


class _TlsConnection(_Checked, AWSHTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(AWSHTTPConnectionPool):  # type: ignore[misc]
    ConnectionCls = _Connection


class _TlsPool(AWSHTTPSConnectionPool):  # type: ignore[misc]
    ConnectionCls = _TlsConnection


class Storage:
    """One bucket, below one prefix. Keys are given without it."""

    def __init__(self, declared: Declared, secrets: Secrets) -> None:
        self._bucket, self._prefix = declared.bucket, declared.prefix
        self._client = client_of(declared, secrets)

    def begin(self, key: str, parts: int) -> Upload:
        """Begin an upload of at most ``parts`` parts."""
        place = self._place(key)
        id_ = self._do("create_multipart_upload", **place)["UploadId"]
        urls = tuple(
            self._client.generate_presigned_url(
                "upload_part", Params={**place, "UploadId": id_, "PartNumber": number}, ExpiresIn=VALID_S
            )
            for number in range(1, parts + 1)
        )
        return Upload(key, id_, urls)

    def complete(self, upload: Upload, etags: list[str]) -> None:
        """Make the parts one object; the first part's etag first."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in enumerate(etags, 1)]
        place = self._place(upload.key)
        self._do("complete_multipart_upload", **place, UploadId=upload.id, MultipartUpload={"Parts": parts})

    def abort(self, upload: Upload) -> None:
        """Give an upload up; its parts go."""
        self._do("abort_multipart_upload", **self._place(upload.key), UploadId=upload.id)

    def abort_older(self, than: datetime) -> int:
        """Give up what was begun before ``than`` and never completed; how many there were."""
        found = self._do("list_multipart_uploads", Bucket=self._bucket, Prefix=self._prefix).get("Uploads", [])
        stale = [one for one in found if one["Initiated"] < than]
        for one in stale:
            self._do("abort_multipart_upload", Bucket=self._bucket, Key=one["Key"], UploadId=one["UploadId"])
        return len(stale)

    def put(self, key: str, data: bytes) -> None:
        self._do("put_object", **self._place(key), Body=data)

    def get(self, key: str, limit: int = SMALL) -> bytes:
        """A small object, whole.

        Raises:
            ObjectUnusable: it is not there, or is larger than anything that was put there.
            StorageError: nothing is known of it.
        """
        answer = self._do("get_object", **self._place(key))
        with _typed("get_object"):
            body: bytes = answer["Body"].read(limit + 1)
        if len(body) > limit:
            raise ObjectUnusable(f"{key} is larger than {limit} bytes, so it is not what was put there.")
        # A connection that ends early says so nowhere else.
        if len(body) < answer["ContentLength"]:
            raise StorageError(f"The storage gave {len(body)} of the {answer['ContentLength']} bytes of {key}.")
        return body

    def url(self, key: str) -> str:
        """An address from which the object can be downloaded for a while."""
        url: str = self._client.generate_presigned_url("get_object", Params=self._place(key), ExpiresIn=VALID_S)
        return url

    def keys(self, prefix: str) -> Iterator[str]:
        """Keys that begin with ``prefix``."""
        token: Mapping[str, str] = {}
        while True:
            page = self._do("list_objects_v2", Bucket=self._bucket, Prefix=self._prefix + prefix, **token)
            yield from (one["Key"].removeprefix(self._prefix) for one in page.get("Contents", []))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        self._do("delete_object", **self._place(key))

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}

    def _do(self, operation: str, **arguments: Any) -> Any:
        with _typed(operation):
            return getattr(self._client, operation)(**arguments)


@contextmanager
def _typed(operation: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        said = error.response.get("Error", {})
        kind = ObjectUnusable if said.get("Code") == NO_SUCH_KEY else StorageError
        raise kind(f"The storage refused {operation}: {said.get('Code')}: {said.get('Message')}.") from error
    except BotoCoreError as error:
        raise StorageError(f"The storage does not answer: {type(error).__name__}. Look at spec.backups.") from error
