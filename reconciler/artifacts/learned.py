"""A core version that a mirror offers and no pin of ours knows: what it takes to be trusted, and kept from then on.

The mirror is trusted as a WordPress trusts it, because an operator named it. What it gives must be, file for file, what
its own checksums say; the digest of the tree is then a pin like any other, in the cache: under the same version nothing
else is ever taken again, from wherever it comes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from reconciler.artifacts.archives import Tree, digest_of_tree, pack, tree_of, tree_of_zip
from reconciler.artifacts.pins import LEARNED, host_variables, keep_wordpress, locked, pins_of, read_pins, write_whole
from reconciler.core.errors import ArtifactError

ROOT = "wordpress"


def can_be_fetched(version: str, cache: Path) -> bool:
    """Whether it is in the cache as its pin says, or the pin names where it comes from."""
    pin = pins_of(cache).wordpress.get(version)
    return pin is not None and (bool(pin.sources) or version in host_variables(cache)["wordpress"])


def learn(version: str, package: Path, checksums: Callable[[], Mapping[str, str]], cache: Path) -> str:
    """Check a core package against the mirror's checksums, keep it and its digest; the digest.

    Raises:
        ArtifactError: it is no such WordPress, or not what the checksums say. Nothing was kept.
    """
    tree = _tree(package, version)
    found = re.search(rb"^\s*\$wp_version = '([^']+)';", tree.get("wp-includes/version.php", b""), re.MULTILINE)
    told = found.group(1).decode("utf-8", "replace") if found else None
    if told != version:
        raise ArtifactError(f"The mirror's package of WordPress {version} holds {told or 'no WordPress'}.")
    _refuse_other(version, tree, checksums())
    digest = digest_of_tree(tree)
    pin = pins_of(cache).wordpress.get(version)
    if pin and pin.content_digest != digest:
        raise ArtifactError(
            f"The mirror's package of WordPress {version} is another than the one that was learned before: "
            f"{digest[:16]}… instead of {pin.content_digest[:16]}…. Look at the mirror."
        )
    keep_wordpress(version, pack(tree), digest, cache)
    _note(version, digest, cache)
    return digest


def _tree(package: Path, version: str) -> Tree:
    name = f"the mirror's package of WordPress {version}"
    with package.open("rb") as file:
        read = tree_of_zip if file.read(2) == b"PK" else tree_of
        file.seek(0)
        return read(file, name, ROOT)


def _refuse_other(version: str, tree: Tree, checksums: Mapping[str, str]) -> None:
    """Every file must be listed; what is listed must be there, but for the themes and plugins that come along."""
    if not checksums:
        raise ArtifactError(f"The mirror has no checksums of WordPress {version}, and no pin says what it must be.")
    wrong = [path for path, data in tree.items() if hashlib.md5(data).hexdigest() != checksums.get(path)]  # noqa: S324
    wrong += [path for path in tree if path == "wp-config.php"]
    wrong += [path for path in checksums if path not in tree and not path.startswith("wp-content/")]
    if wrong:
        raise ArtifactError(
            f"The mirror's package of WordPress {version} is not what its checksums say: {', '.join(sorted(wrong)[:5])}"
            f"{' …' if len(wrong) > 5 else ''}. Look at the mirror."
        )


def _note(version: str, digest: str, cache: Path) -> None:
    with locked(cache, LEARNED):
        path = cache / LEARNED
        ours = read_pins()
        known = read_pins(path).model_dump()["wordpress"] if path.exists() else {}
        known[version] = {"content_digest": digest, "sources": {}}
        document = {"wordpress": known, "wp_cli": ours.wp_cli.model_dump(exclude_none=True)}
        write_whole(path, json.dumps(document, indent=1, sort_keys=True).encode() + b"\n")
