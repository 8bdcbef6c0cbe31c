"""A real S3 service (SeaweedFS) at an address that nodes reach too. It refuses wrong keys, signatures and parts."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.lab.ports import free_port

ACCESS_KEY, SECRET_KEY, BUCKET = "trueup-tests", "a secret of the tests", "backups"
PROBE = "is-there-room"
PATIENCE_S = 240.0


@dataclass(frozen=True)
class S3:
    address: str
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        return {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}

    @property
    def client(self) -> Any:
        """As its administrator: what a test does to the objects."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def platform(self, **more: Any) -> str:
        """The platform document that names it."""
        lines = ["apiVersion: trueup/v1", "kind: Platform", "spec:", "  backups:"]
        fields = {"endpoint": self.endpoint, "bucket": BUCKET, "credentials": "backups", **more}
        return "\n".join([*lines, *(f"    {name}: {json.dumps(value)}" for name, value in fields.items()), ""])


@contextmanager
def s3_server(directory: Path, address: str) -> Iterator[S3]:
    """Serve at ``address`` until the block ends."""
    identity = {"name": "trueup", "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]}
    config = directory / "s3.json"
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    config.write_text(json.dumps({"identities": [{**identity, "actions": actions}]}))
    # Each has its gRPC neighbour ten thousand above.
    ports = [free_port(10_000) for _ in range(4)]
    argv = [str(Path(sys.executable).with_name("weed")), "-logtostderr=true", "server", f"-dir={directory}"]
    argv += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=256", "-volume.max=40", "-filer", "-s3"]
    argv += [f"-s3.ip.bind={address}", f"-s3.port={ports[0]}", f"-s3.config={config}"]
    argv += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    argv += [f"-master.port={ports[1]}", f"-volume.port={ports[2]}", f"-filer.port={ports[3]}"]
    environment = {**os.environ, "GOMEMLIMIT": "1GiB"}
    with (directory / "weed.log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        server = S3(address, ports[0])
        _wait(server, directory / "weed.log")
        yield server
    finally:
        # It takes half a minute to end in order, and there is nothing to keep.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(server: S3, log: Path) -> None:
    client = server.client
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with suppress(BotoCoreError, ClientError):
            # Made by a try whose answer was lost, the bucket is there all the same.
            with suppress(client.exceptions.BucketAlreadyExists, client.exceptions.BucketAlreadyOwnedByYou):
                client.create_bucket(Bucket=BUCKET)
            # A bucket can be made before there is room for an object.
            client.put_object(Bucket=BUCKET, Key=PROBE, Body=b"x")
            client.delete_object(Bucket=BUCKET, Key=PROBE)
            return
        time.sleep(0.3)
    raise AssertionError(f"The storage did not start: {log.read_text(errors='replace')[-2000:]}")
