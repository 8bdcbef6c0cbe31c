"""Objects of a real S3 service as sources of code."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.core.errors import SourceRefused, SourceUnavailable
from reconciler.core.manifests import ObjectStore
from reconciler.sources.objects import Objects, ObjectSource
from reconciler.storage.secret_store import Secrets
from tests.lab.s3 import BUCKET, S3, s3_server

SOURCE = ObjectSource(BUCKET, "code/shop.tar.gz")


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3_server(tmp_path_factory.mktemp("s3"), "127.0.0.1") as server:
        yield server


@pytest.fixture
def secrets(s3: S3, tmp_path: Path) -> Secrets:
    secrets = Secrets(tmp_path / "secrets")
    secrets.put("backups", s3.credentials)
    return secrets


@pytest.fixture
def objects(s3: S3, secrets: Secrets) -> Objects:
    return Objects(ObjectStore(endpoint=s3.endpoint), secrets)


def put(s3: S3, data: bytes) -> None:
    s3.client.put_object(Bucket=SOURCE.bucket, Key=SOURCE.key, Body=data)


def test_an_object_is_fetched_as_long_as_it_is_the_one_declared(s3: S3, objects: Objects, tmp_path: Path) -> None:
    put(s3, b"first" * 400_000)
    etag = objects.resolve(SOURCE)
    objects.fetch(SOURCE, etag, tmp_path / "a", 1 << 24)
    assert (tmp_path / "a").read_bytes() == b"first" * 400_000

    put(s3, b"second")
    with pytest.raises(SourceRefused, match="not the object that was declared"):
        objects.fetch(SOURCE, etag, tmp_path / "b", 1 << 24)
    objects.fetch(SOURCE, None, tmp_path / "b", 1 << 24)
    assert (tmp_path / "b").read_bytes() == b"second"


def test_too_large_is_refused_before_it_is_written(s3: S3, objects: Objects, tmp_path: Path) -> None:
    put(s3, b"12345")
    with pytest.raises(SourceRefused, match="larger than 0 MiB"):
        objects.fetch(SOURCE, None, tmp_path / "a", 4)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("source", [ObjectSource(BUCKET, "nothing"), ObjectSource("no-such-bucket", "shop.tar.gz")])
def test_what_is_not_there(objects: Objects, source: ObjectSource, tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="is not there"):
        objects.resolve(source)
    with pytest.raises(SourceUnavailable, match="is not there"):
        objects.fetch(source, None, tmp_path / "a", 1 << 20)


def test_wrong_keys_are_told_without_them(s3: S3, secrets: Secrets) -> None:
    secrets.put("stale", {"access_key": "somebody", "secret_key": "else entirely"})
    with pytest.raises(SourceRefused, match="does not give") as refused:
        Objects(ObjectStore(endpoint=s3.endpoint, credentials="stale"), secrets).resolve(SOURCE)
    assert "entirely" not in str(refused.value)


def test_no_service_and_a_silent_one(secrets: Secrets) -> None:
    with pytest.raises(SourceRefused, match=re.escape("Set spec.sources.s3")):
        Objects(None, secrets).resolve(SOURCE)
    with pytest.raises(SourceUnavailable, match="does not answer"):
        Objects(ObjectStore(endpoint="http://127.0.0.1:9"), secrets).resolve(SOURCE)


@pytest.mark.parametrize(
    "ref", ["s3://", "s3://bucket", "s3://bucket/", "s3://UPPER/key", "s3://bucket/a b", "s3:/b/k"]
)
def test_what_names_no_object(ref: str) -> None:
    with pytest.raises(SourceRefused, match=re.escape("Write s3://bucket/key")):
        ObjectSource.parse(ref)
