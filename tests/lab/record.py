"""What the lab writes down about each node before it makes anything, so that any later process can undo it.

Decides who owns a node: a process (its pid and start time, so that a reused pid is not taken for it) or nobody
(a persistent node, which only `down` removes).
"""

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.lab.paths import LabError

NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class Owner:
    pid: int
    started: str

    def alive(self) -> bool:
        return _started(self.pid) == self.started


@dataclass(frozen=True)
class Record:
    name: str
    address: str
    layers: tuple[str, ...]
    authorized_keys: tuple[str, ...]
    owner: Owner | None

    @property
    def persistent(self) -> bool:
        return self.owner is None

    @property
    def abandoned(self) -> bool:
        return self.owner is not None and not self.owner.alive()


def this_process() -> Owner:
    return Owner(os.getpid(), _started(os.getpid()))


def write_record(record: Record, directory: Path) -> None:
    draft = directory / "record.json.new"
    draft.write_text(json.dumps(asdict(record), indent=2))
    draft.rename(directory / "record.json")


def read_record(directory: Path) -> Record:
    data = json.loads((directory / "record.json").read_text())
    owner = Owner(**data["owner"]) if data["owner"] else None
    layers, keys = tuple(data["layers"]), tuple(data["authorized_keys"])
    return Record(data["name"], data["address"], layers, keys, owner)


def check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise LabError(f"{name!r} is no node name: use up to 40 of a-z, 0-9 and -, beginning with a letter.")


def _started(pid: int) -> str:
    """Start time of a living process in clock ticks since boot, or "" (proc(5): field 22, after the last ")")."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]
