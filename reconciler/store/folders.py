"""The folder of a larger repository that has the documents: what a commit has in its place, which commits change it."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.store.objects import EMPTY_TREE, Objects, commit_hex

_ODD = {"120000": "a symbolic link", "160000": "a submodule"}


def is_there(objects: Objects, commit: str) -> bool:
    """Whether the commit has such a folder; at the top it always has."""
    return objects.tree(commit) != EMPTY_TREE


def obstacle(objects: Objects, commit: str) -> str | None:
    """What the commit has where the folder should be, or a folder above it; None: folders, or nothing."""
    parts = objects.folder.split("/") if objects.folder else []
    for path in ("/".join(parts[: number + 1]) for number in range(len(parts))):
        listed = objects.ask("ls-tree", "--full-tree", commit_hex(commit), "--", path).decode().split()
        if listed and listed[1] != "tree":
            return f"{path} as {_ODD.get(listed[0], 'a file')}"
    return None


def changing(objects: Objects, rows: Sequence[Sequence[str]]) -> list[str]:
    """Of commits, each with its parents, those that leave the folder other than any of their parents has it.

    Each parent counts: a merge that takes one side's folder undoes what the other side did there.
    """
    if not objects.folder:
        return [commit for commit, *_ in rows]
    every = list(dict.fromkeys(commit for row in rows for commit in row))
    trees = dict(zip(every, objects.trees(every), strict=True))
    before = {commit: [trees[parent] for parent in parents] or [EMPTY_TREE] for commit, *parents in rows}
    return [commit for commit, former in before.items() if any(tree != trees[commit] for tree in former)]


def deciding(objects: Objects, rows: Sequence[Sequence[str]]) -> list[str]:
    """Those of them that change the folder by what they are themselves, not by what a merge brings together.

    At the top, all of them: there nobody else's work is about.
    """
    changed = changing(objects, rows)
    if not objects.folder:
        return changed
    parents = {commit: former for commit, *former in rows}
    return [commit for commit in changed if not _brings_together(objects, commit, parents[commit])]


def _brings_together(objects: Objects, commit: str, parents: Sequence[str]) -> bool:
    """Whether one side left the folder as it was where both parted, and the merge has what the other side has."""
    if len(parents) != 2:
        return False
    bases = objects.run("merge-base", "--all", *map(commit_hex, parents)).output.decode().split()
    if len(bases) != 1:
        return False
    base, merged, one, other = objects.trees([bases[0], commit, *parents])
    return (merged == one and other == base) or (merged == other and one == base)
