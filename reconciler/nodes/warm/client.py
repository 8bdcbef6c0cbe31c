"""Has the warm parent run a playbook, and is to its caller what ``ansible-playbook`` itself would be.

``python -I -S client.py PARENT NOTE PROGRAM ARGUMENT …`` hands over all that makes a process: arguments, environment,
working directory, umask, ignored signals, and then the descriptors 0 to 2. It passes signals on and ends as the run
ends. Where no parent has the run ready within ``HAND_OVER_S`` it writes to NOTE why, and becomes PROGRAM.

A run begins when it is given the descriptors. So there is never one of each, and no parent that froze holds a pipe
that others read to its end.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import socket
import sys
from typing import NoReturn

HAND_OVER_S = 5.0
"""How long the parent may take: it has a run ready within 0.1 s, once it has begun, which takes half a second."""
LAST_WORD_S = 1.0
"""How long to wait for the parent to say by which signal a run ended."""
SILENT = "silent"
"""How a note begins that tells of a parent without an answer."""
RELAYED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
MESSAGE_BYTES = 4096
MOST_MEMORY = 1 << 30
"""Of each of a run's processes: Ansible keeps in memory what a node answers, however much that is."""
GO = b"go"


class Refused(Exception):
    """The parent answered, and takes this run not."""


def main(parent: str, note: str, command: list[str]) -> int:
    """The run's exit status, once it has ended."""
    limit()  # for the plain program, if it comes to that
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        connection, run = handed_over(parent, command)
    except TimeoutError:
        instead(command, note, f"{SILENT}: the parent gave no answer within {HAND_OVER_S:g} s")
    except Refused as refused:
        instead(command, note, f"refused: {refused}")
    except OSError as error:
        instead(command, note, f"gone: {error}")
    for number in RELAYED:
        signal.signal(number, lambda number, _frame: signal.pidfd_send_signal(run, number))
    end = last_word(connection, run)
    if "signal" in end:
        die_by(end["signal"])
    return end["exit"]


def limit() -> None:
    """Have no more than ``MOST_MEMORY``; nor may what is started."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = MOST_MEMORY if hard == resource.RLIM_INFINITY else min(MOST_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def handed_over(parent: str, command: list[str]) -> tuple[socket.socket, int]:
    """The connection to the run, and its pidfd; it has begun.

    Raises:
        Refused, TimeoutError, OSError: it has not, and never will.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.settimeout(HAND_OVER_S)
    directory = os.open(parent, os.O_PATH | os.O_DIRECTORY)
    # Through the directory's descriptor: a socket's own path has room for 107 characters.
    connection.connect(f"/proc/self/fd/{directory}/socket")
    os.close(directory)
    connection.send(request_for(command))
    answer, run, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    if not answer:
        raise OSError("the parent ended before it had answered")
    said = json.loads(answer)
    if "refused" in said:
        raise Refused(said["refused"])
    socket.send_fds(connection, [GO], [0, 1, 2])
    return connection, run[0]


def request_for(command: list[str]) -> bytes:
    umask = os.umask(0o077)
    os.umask(umask)
    signals = (signal.SIGHUP, *RELAYED)
    request = {
        "argv": command,
        "environment": dict(os.environ),
        "directory": os.getcwd(),
        "umask": umask,
        "ignored": [number for number in signals if signal.getsignal(number) is signal.SIG_IGN],
    }
    return json.dumps(request).encode()


def last_word(connection: socket.socket, run: int) -> dict[str, int]:
    """``{"exit": status}`` or ``{"signal": number}``, once the run is no more."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    poll.register(run, select.POLLIN)
    poll.poll()
    connection.settimeout(LAST_WORD_S)
    try:
        said = connection.recv(MESSAGE_BYTES)
    except TimeoutError:
        said = b""
    poll.unregister(connection)
    poll.poll()
    # A run tells of its exit itself, its parent of a signal. Where neither speaks, both were killed.
    end: dict[str, int] = json.loads(said or b'{"signal": 9}')
    return end


def die_by(number: int) -> NoReturn:
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


def instead(command: list[str], note: str, reason: str) -> NoReturn:
    """Become the plain program."""
    with open(note, "w") as file:
        file.write(reason)
    os.execvp(command[0], command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
