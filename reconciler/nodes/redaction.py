"""Removes what must not be read by whoever reads a job's message: known secrets, and what looks like one."""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "***"
_SHAPES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S), HIDDEN),
    (re.compile(r"(://)[^/\s:@'\"]*:[^/\s@'\"]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(?i)(X-Amz-(?:Signature|Credential|Security-Token)=)[^&\s'\"]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(identified\s+by\s+['\"])[^'\"]+"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)(authorization['\"]?\s*[:=]\s*['\"]?(?:basic|bearer)\s+)[^\s'\"]+"), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"(?i)((?:password|passwd|passphrase|secret|token|api_?key|(?:auth|logged_in|nonce)_(?:key|salt))"
            r"\\?['\"]?\s*[:=,]\s*\\?['\"]?)[^\s'\",}\\]+"
        ),
        rf"\1{HIDDEN}",
    ),
)


def redact(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` without ``secrets`` and without what has the shape of a key, password, token or signature."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    for shape, replacement in _SHAPES:
        text = shape.sub(replacement, text)
    return text


def tail(text: str, limit: int) -> str:
    """The last ``limit`` bytes of ``text`` at most, from the beginning of a line where there is one."""
    data = text.encode()
    if len(data) <= limit:
        return text
    cut = data[-limit:]
    return cut[cut.find(b"\n") + 1 :].decode(errors="ignore")
