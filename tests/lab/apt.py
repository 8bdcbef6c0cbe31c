"""Decides which Debian mirror the image is built from: the one that this host's own apt uses.

So the project names no mirror. `TRUEUP_LAB_MIRROR` and `TRUEUP_LAB_SECURITY_MIRROR` override it.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.paths import LabError


@dataclass(frozen=True)
class AptSources:
    mirror: str
    security: str | None

    def lines(self, suite: str) -> str:
        """The text of a sources.list for one Debian release."""
        lines = [f"deb {self.mirror} {suite} main", f"deb {self.mirror} {suite}-updates main"]
        if self.security:
            lines.append(f"deb {self.security} {suite}-security main")
        return "\n".join(lines) + "\n"


def read_host_sources(apt: Path = Path("/etc/apt")) -> AptSources:
    """Raises LabError when the host names no Debian mirror."""
    uris = list(_uris(apt))
    mirror = os.environ.get("TRUEUP_LAB_MIRROR") or _first(uris, "/debian")
    security = os.environ.get("TRUEUP_LAB_SECURITY_MIRROR") or _first(uris, "/debian-security")
    if mirror is None:
        raise LabError(f"The apt sources in {apt} name no Debian mirror. Set TRUEUP_LAB_MIRROR to one's URL.")
    return AptSources(mirror, security)


def _first(uris: list[str], ending: str) -> str | None:
    return next((uri for uri in uris if uri.rstrip("/").endswith(ending)), None)


def _uris(apt: Path) -> Iterator[str]:
    for path in sorted([apt / "sources.list", *apt.glob("sources.list.d/*")]):
        if path.suffix == ".list" and path.is_file():
            yield from _uris_of_list(path.read_text())
        elif path.suffix == ".sources":
            yield from _uris_of_deb822(path.read_text())


def _uris_of_list(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.startswith("deb "):
            yield next(word for word in line.split() if ":/" in word)


def _uris_of_deb822(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if line.lower().startswith("uris:"):
            yield from line.split()[1:]
