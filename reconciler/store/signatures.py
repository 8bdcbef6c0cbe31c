"""Whether commits are signed by those who may, as ``git verify-commit`` says. ssh signatures only."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from reconciler.store.objects import Objects, commit_hex


def badly_signed(objects: Objects, commits: Iterable[str], signers: Iterable[str]) -> dict[str, str]:
    """Which of the commits none of ``signers`` signed, and what Git says of each."""
    with tempfile.TemporaryDirectory(prefix="trueup-signers-") as directory:
        allowed = Path(directory) / "allowed_signers"
        allowed.write_text("".join(f"{_line(signer)}\n" for signer in signers))
        found = {}
        for commit in commits:
            # Keys that the environment trusts for other things, or another program, must not count here.
            answer = objects.run(
                "verify-commit",
                commit_hex(commit),
                settings={
                    "gpg.ssh.allowedSignersFile": str(allowed),
                    "gpg.ssh.program": "ssh-keygen",
                    "gpg.minTrustLevel": "fully",
                    "gpg.program": "false",
                    "gpg.openpgp.program": "false",
                    "gpg.x509.program": "false",
                },
            )
            if answer.status:
                found[commit] = (answer.errors.splitlines() or ["it has no signature"])[0]
        return found


def _line(signer: str) -> str:
    principal, key = signer.split(" ", 1)
    return f'{principal} namespaces="git" {key}'
