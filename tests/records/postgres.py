"""A private PostgreSQL for tests: own data directory, unix socket only, gone afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def binaries() -> Path | None:
    """Debian's newest PostgreSQL, or whatever PATH has."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    initdb = shutil.which("initdb")
    return Path(initdb).parent if initdb else None


@contextmanager
def cluster(bin_directory: Path) -> Iterator[Path]:
    """Start a server; gives the directory of its socket. It refuses root, so root becomes somebody else."""
    who = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    directory = Path(tempfile.mkdtemp(prefix="trueup-pg-"))
    if who:
        shutil.chown(directory, **who)
    data = directory / "data"

    def run(*command: object) -> None:
        arguments = [str(part) for part in command]
        subprocess.run(arguments, check=True, cwd=directory, stdout=subprocess.DEVNULL, timeout=60, **who)

    try:
        initdb = [bin_directory / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        run(*initdb, "--locale=C")
        options = f"-c listen_addresses= -c unix_socket_directories={directory} -c max_connections=100"
        # Processes are killed in tests, never the machine.
        options += " -c fsync=off -c full_page_writes=off"
        control = [bin_directory / "pg_ctl", "-D", data, "-w", "-l", directory / "log"]
        run(*control, "-o", options, "start")
        try:
            yield directory
        finally:
            run(*control, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
