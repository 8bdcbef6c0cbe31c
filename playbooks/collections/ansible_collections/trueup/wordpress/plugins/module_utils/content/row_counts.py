# Copyright the Trueup contributors
# SPDX-License-Identifier: Apache-2.0
"""How many rows of which tables a dump has, told while it passes by: what comes back later is held against that."""

from __future__ import annotations

import contextlib
import os
import re
import threading

from ansible_collections.trueup.wordpress.plugins.module_utils.dump import OURS

BLOCK = 1 << 20
MOST = 10_000
"""Tables that are named; of a dump with more nothing is told."""
_KEPT = 400
"""Bytes of a line that are looked at: what makes or fills a table, and its name."""
_TABLE = re.compile(rb"(CREATE TABLE|INSERT INTO) `((?:[^`]|``)+)` (?:\(|VALUES)")


class RowCounts:
    """Of a dump that ``dump.DUMP`` prints, in which each row has a line of its own. ``size``: bytes that passed."""

    def __init__(self):
        self.size = 0
        self._tables = {}
        self._filled = None
        self._line = b""

    def feed(self, block):
        """Look at the next bytes; of a row, however long it is, only the beginning is kept."""
        self.size += len(block)
        first, *others = block.split(b"\n")
        self._line += first[: max(0, _KEPT - len(self._line))]
        for line in others:
            self._ended()
            self._line = line[:_KEPT]

    @property
    def tables(self):
        """Rows by table, None for those of one that cannot be counted; None where there are too many tables."""
        if len(self._tables) > MOST:
            return None
        return {name: rows for name, rows in self._tables.items() if not name.startswith(OURS)}

    def _ended(self):
        line = self._line
        if line.startswith(b"("):
            if self._filled is not None and self._tables[self._filled] is not None:
                self._tables[self._filled] += 1
        elif line.startswith((b"CREATE TABLE `", b"INSERT INTO `")):
            self._begun(line)

    def _begun(self, line):
        found = _TABLE.match(line)
        if not found:
            return
        name = found[2].replace(b"``", b"`").decode("utf-8", "replace")
        if len(self._tables) <= MOST:
            self._tables.setdefault(name, 0)
        self._filled = name if name in self._tables and found[1] == b"INSERT INTO" else None
        if self._filled is not None and line[found.end() :].strip():
            # A server whose rows have no lines of their own.
            self._tables[name] = None


class Counted(threading.Thread):
    """Passes a stream on to ``passed``, which somebody else reads, and counts on the way."""

    def __init__(self, stream):
        super().__init__(daemon=True)
        self.counts = RowCounts()
        self._stream = stream
        reader, self._writer = os.pipe()
        self.passed = os.fdopen(reader, "rb", 0)
        self.start()

    def run(self):
        # A reader that ended says itself why; whoever writes the stream ends by it.
        with self._stream, contextlib.suppress(BrokenPipeError), os.fdopen(self._writer, "wb", 0) as passed:
            while block := self._stream.read1(BLOCK):
                view = memoryview(block)
                while view:
                    view = view[passed.write(view) :]
                self.counts.feed(block)
