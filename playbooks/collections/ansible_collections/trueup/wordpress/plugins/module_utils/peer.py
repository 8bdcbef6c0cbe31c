# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""Who listens at a Unix socket: a site can lead the path of its own to anybody's."""

from __future__ import annotations

import pwd
import socket
import struct


def is_of(connection, user):
    """Whether a process of ``user``, by name, made the socket that this one is connected to."""
    uid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    return uid == pwd.getpwnam(user).pw_uid
