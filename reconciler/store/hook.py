"""The post-receive hook: a push wakes the control plane, and never fails because of it."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from reconciler.core.errors import StoreError

_MARK = "# Written by Trueup: wakes the control plane after a push."
# A socket's path may have 107 bytes; from its own directory the name alone is short enough.
_WAKE = (
    "import os, socket, sys; "
    "directory, name = os.path.split(sys.argv[1]); os.chdir(directory); "
    "wake = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); wake.setblocking(False); "
    "wake.sendto(b'push', name)"
)


def install_hook(repository: Path, socket_path: Path) -> None:
    """Writes ``hooks/post-receive``, which sends one datagram to ``socket_path`` after each push.

    Raises:
        StoreError: a hook that isn't ours is there.
    """
    hook = repository / "hooks" / "post-receive"
    try:
        if hook.exists() and _MARK not in hook.read_text(errors="replace"):
            raise StoreError(f"{hook} is somebody else's. Move it away, or let it send a datagram to {socket_path}.")
        hook.parent.mkdir(exist_ok=True)
        fresh = hook.with_suffix(".new")
        fresh.write_text(_script(socket_path.absolute()))
        fresh.chmod(0o755)
        fresh.replace(hook)
    except OSError as error:
        raise StoreError(f"{hook} cannot be written: {error.strerror}.") from error


def _script(socket_path: Path) -> str:
    command = shlex.join([sys.executable, "-I", "-S", "-c", _WAKE, os.fspath(socket_path)])
    return f"#!/bin/sh\n{_MARK}\ncat >/dev/null\n{command} >/dev/null 2>&1\nexit 0\n"
