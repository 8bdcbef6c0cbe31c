"""Decides which nodes exist: makes them, lists them, removes them, and keeps snapshots to start others from.

Several processes may use one state directory. Everything a node needs is written down before it is made, so the nodes
of a process that was killed are found and removed by the next one. Only what is written down is ever ended.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.lab.commands import run
from tests.lab.container import cgroup2_mount
from tests.lab.image import Image, ensure_image
from tests.lab.network import Network, ensure_bridge, read_network, remove_network
from tests.lab.node import Node, make_host_key
from tests.lab.paths import LabError, state_directory
from tests.lab.record import Record, check_name, read_record, this_process, write_record

UNUSED_SNAPSHOT_DAYS = 2


class Lab:
    """The nodes in one state directory. Making a Lab sweeps what dead processes left there."""

    def __init__(self, state: Path | None = None) -> None:
        self.state = state or state_directory()
        self.nodes_directory = self.state / "nodes"
        self.nodes_directory.mkdir(parents=True, exist_ok=True, mode=0o755)
        self.lab_id = hashlib.sha256(str(self.state.resolve()).encode()).hexdigest()[:4]
        self._pid = os.getpid()
        self._own: list[Node] = []
        with self._lock():
            self._ensure_key()
        self.swept = self.sweep()

    # Nodes

    def up(
        self,
        name: str,
        authorized_key: str | None = None,
        *,
        snapshot: str | None = None,
        persist: bool = False,
    ) -> Node:
        """A booted node; about a second. `authorized_key` is a public key line that may log in as root, besides ours.

        Ours ends with this process; a persistent one stays until `down`. `snapshot` is a key given to `snapshot()`.
        """
        check_name(name)
        image = ensure_image()
        layers = self._snapshot_layers(image, snapshot) if snapshot else (str(image.root),)
        keys = tuple(key.strip() for key in (self.public_key, authorized_key) if key)
        node = self._register(name, layers, keys, persist=persist)
        if not persist:
            self._own.append(node)
        try:
            node.start()
        except BaseException:
            node.down()
            raise
        return node

    def up_all(self, names: Sequence[str], authorized_key: str | None = None, **options: object) -> list[Node]:
        """Several at once; if one fails, all are removed."""
        with ThreadPoolExecutor(len(names)) as pool:
            futures = [pool.submit(self.up, name, authorized_key, **options) for name in names]  # type: ignore[arg-type]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                if future.exception() is None:
                    future.result().down()
            raise

    def nodes(self) -> list[Node]:
        found = []
        for path in self._records():
            with suppress(FileNotFoundError):  # removed by another process since it was listed
                found.append(self._node(read_record(path.parent)))
        return found

    def node(self, name: str) -> Node:
        directory = self.nodes_directory / name
        if not (directory / "record.json").exists():
            raise LabError(f"There is no node {name}. `python -m tests.lab list` shows those there are.")
        return self._node(read_record(directory))

    def sweep(self) -> list[str]:
        """Remove the nodes whose owner is dead; their names."""
        abandoned = [node for node in self.nodes() if node.record.abandoned]
        for node in abandoned:
            self.remove(node)
        return [node.name for node in abandoned]

    def close(self) -> None:
        """Remove this process's own nodes; a forked child's call does nothing."""
        if os.getpid() == self._pid:
            for node in self._own:
                self.remove(node)

    def remove(self, node: Node) -> None:
        """Several processes may try at once: one does it, the others wait and find it done."""
        try:
            directory = os.open(node.directory, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            if node.directory.exists():
                self._remove_locked(node)
        finally:
            os.close(directory)

    def _remove_locked(self, node: Node) -> None:
        node.kill()
        gone = self.nodes_directory / f".gone-{node.name}-{time.monotonic_ns()}"
        with self._lock():
            node.directory.rename(gone)
            if not self._records():
                self._remove_shared(node.network)
        # Not a tree walk of our own: were anything still mounted in there, this leaves it alone.
        run(["rm", "-rf", "--one-file-system", str(gone)], timeout=120)

    # Snapshots

    def has_snapshot(self, key: str) -> bool:
        return (ensure_image().snapshots / key / "layers.json").exists()

    def snapshot(self, node: Node, key: str) -> None:
        """Power the node off and keep its files under `key`. The node stays down; `node.start()` continues on top."""
        image = ensure_image()
        target = image.snapshots / key
        if target.exists():
            raise LabError(f"There is a snapshot {key} already.")
        if node.running:
            node.stop()
        draft = image.snapshots / f".new-{node.name}-{key}"
        run(["rm", "-rf", str(draft)])
        draft.mkdir()
        run(["mv", str(node.container.upper), str(draft / "upper")], timeout=120)
        _forget_identity(draft / "upper")
        (draft / "layers.json").write_text(json.dumps([str(target / "upper"), *node.record.layers]))
        draft.rename(target)
        (target / "used").touch()
        node.put_on((str(target / "upper"), *node.record.layers))

    def ensure_snapshot(self, key: str, prepare: Callable[[Node], None]) -> str:
        """`key`, its snapshot made first if missing from a bare node given to `prepare`; one maker at a time."""
        image = ensure_image()
        with _snapshot_lock(image, key).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.has_snapshot(key):
                (image.snapshots / key / "used").touch()
            else:
                self._remove_unused_snapshots(image)
                node = self.up(f"prepare-{hashlib.sha256(key.encode()).hexdigest()[:8]}")
                try:
                    prepare(node)
                    self.snapshot(node, key)
                finally:
                    node.down()
        return key

    def forget_snapshot(self, key: str) -> None:
        """Delete it; no node may be running on it."""
        snapshots = ensure_image().snapshots
        run(["rm", "-rf", str(snapshots / key), str(snapshots / f".{key}.lock")], timeout=120)

    def _snapshot_layers(self, image: Image, key: str) -> tuple[str, ...]:
        directory = image.snapshots / key
        if not (directory / "layers.json").exists():
            raise LabError(f"There is no snapshot {key} of image {image.key}.")
        layers = tuple(json.loads((directory / "layers.json").read_text()))
        for layer in layers[:-1]:
            (Path(layer).parent / "used").touch()
        return layers

    def _remove_unused_snapshots(self, image: Image) -> None:
        in_use = {layer for node in self.nodes() for layer in node.record.layers}
        for used in image.snapshots.glob("*/used"):
            # Another process may be about to use it, or to remove it as well.
            with (
                suppress(FileNotFoundError, BlockingIOError),
                _snapshot_lock(image, used.parent.name).open("w") as lock,
            ):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                old = time.time() - used.stat().st_mtime > UNUSED_SNAPSHOT_DAYS * 86400
                if old and str(used.parent / "upper") not in in_use:
                    shutil.rmtree(used.parent)

    # What is shared by all nodes

    @property
    def public_key(self) -> str:
        return (self.state / "id_ed25519.pub").read_text().strip()

    @property
    def private_key_file(self) -> Path:
        return self.state / "id_ed25519"

    def _ensure_key(self) -> None:
        if not self.private_key_file.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(self.private_key_file)])

    def _register(self, name: str, layers: tuple[str, ...], keys: tuple[str, ...], *, persist: bool) -> Node:
        """Claim a name and an address on paper."""
        with self._lock():
            directory = self.nodes_directory / name
            if (directory / "record.json").exists():
                raise LabError(f"There is a node {name} already. `python -m tests.lab down {name}` removes it.")
            run(["rm", "-rf", "--one-file-system", str(directory)])  # claimed and left before its record was written
            taken = [node.address for node in self.nodes()]
            network = self._network()
            ensure_bridge(network)
            address = network.free_address(taken)
            directory.mkdir()
            make_host_key(directory, address)
            record = Record(name, address, layers, keys, None if persist else this_process())
            write_record(record, directory)
            return self._node(record)

    def _node(self, record: Record) -> Node:
        directory = self.nodes_directory / record.name
        return Node(record, directory, self._network(), self._control_groups(), self.remove)

    def _records(self) -> list[Path]:
        return sorted(self.nodes_directory.glob("[a-z]*/record.json"))

    def _network(self) -> Network:
        return read_network(self.lab_id, self.state / "network.json")

    def _control_groups(self) -> Path:
        mount = cgroup2_mount()
        if mount is None:
            raise LabError("This host does not mount the unified control group hierarchy (cgroup2).")
        return mount / f"trueup-lab-{self.lab_id}"

    def _remove_shared(self, network: Network) -> None:
        remove_network(network, self.state / "network.json")
        if self._control_groups().exists():
            self._control_groups().rmdir()

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with (self.state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _forget_identity(upper: Path) -> None:
    for path in [*upper.glob("etc/ssh/ssh_host_*"), upper / "etc/machine-id", upper / "root/.ssh/authorized_keys"]:
        path.unlink(missing_ok=True)


def _snapshot_lock(image: Image, key: str) -> Path:
    """The lock of who makes, uses or removes it."""
    return image.snapshots / f".{key}.lock"
