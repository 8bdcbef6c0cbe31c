"""What the store has of the repository that it follows: what it fetched, what it accepted, what it had to leave out.

``refs/trueup/upstream`` is what was fetched, ``refs/trueup/accepted`` what was last taken over or pushed, and
``refs/trueup/dropped/<commit>`` each commit of ours that fitted no more. A clone or a push sees none of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from reconciler.core.errors import HeadMoved, NotFound, UpstreamHeld
from reconciler.store import folders
from reconciler.store.importing import TRUEUP, Author, person
from reconciler.store.locks import remove_dead_locks, writer_lock
from reconciler.store.objects import MAIN, Objects, commit_hex
from reconciler.store.remote import FETCHED
from reconciler.store.replay import REPLAYED, Ours, Redo, Replay, Replayed, ours
from reconciler.store.signatures import badly_signed
from reconciler.store.snapshot import Reader, Snapshot
from reconciler.store.writer import Evaluate, Writer, import_commits, move_refs

ACCEPTED = "refs/trueup/accepted"
DROPPED = "refs/trueup/dropped"
PROPOSED = "refs/trueup/proposed"

RedoOn = Callable[[str, frozenset[str]], Redo]
"""``Redo`` for a new head, given that commit and the paths that changed upstream."""

_PLATFORM = "platform.yaml"
_MOST_RACES = 50
_MOST_TOLD = 20
_SHAPE = "%(refname:lstrip=3)%00%(taggerdate:unix)%00%(contents:subject)"


@dataclass(frozen=True)
class Dropped:
    """A commit of ours that upstream's changes left no room for."""

    id: str
    job: str | None
    subject: str
    reason: str
    at: datetime


class Upstream:
    """The refs, and how the branch moves with them. Only one process at a time may change them."""

    def __init__(self, objects: Objects, reader: Reader, writer: Writer) -> None:
        self._objects = objects
        self._reader = reader
        self._writer = writer

    def accepted(self) -> str | None:
        """The upstream commit that the store has taken over, or pushed, last."""
        return self._ref(ACCEPTED)

    def fetched(self) -> str | None:
        return self._ref(FETCHED)

    def head(self) -> str:
        return self._objects.commit_id()

    def has(self, commit: str) -> bool:
        """Whether the store's branch has the commit already."""
        return self._objects.is_ancestor(commit, self.head())

    def astray(self, commits: Iterable[str]) -> set[str]:
        """Those of the commits that the store's branch does not have."""
        wanted = {commit_hex(commit) for commit in commits}
        feed = "\n".join([*wanted, f"^{self.head()}", ""]).encode()
        listed = self._objects.ask("rev-list", "--ignore-missing", "--stdin", feed=feed) if wanted else b""
        return wanted.intersection(listed.decode().split())

    def waiting(self) -> int:
        """How many commits of ours upstream doesn't have."""
        known = self.accepted()
        return int(self._objects.ask("rev-list", "--count", MAIN, *([f"^{known}"] if known else [])))

    def clear(self) -> None:
        """Remove what dead processes left in the way."""
        with writer_lock(self._objects.path):
            remove_dead_locks(self._objects.path)

    def judge(self, remote: str) -> None:
        """Hold a fetched commit against what was accepted before.

        Raises:
            UpstreamHeld: its history isn't a continuation of that, or it has no documents any more.
        """
        known, head = self.accepted(), self.head()
        if known is not None and not self._objects.is_ancestor(known, remote):
            raise self._not_a_continuation(known, remote)
        if known is None and not folders.is_there(self._objects, remote):
            raise self._without_folder(remote)
        if known is None and not self._have_common_history(head, remote) and not self._is_pristine(head):
            raise UpstreamHeld(
                "unrelated",
                f"Upstream's {remote[:12]} and this store have no history in common. Nothing was applied. Correct "
                f"TRUEUP_UPSTREAM, or take it over with `trueup upstream accept {remote}`.",
            )
        self.refuse_empty(remote)

    def refuse_empty(self, remote: str) -> None:
        """An upstream without documents is a mistake: it never means that everything is to go.

        Raises:
            UpstreamHeld: it has none, and this store has some.
        """
        if self._reader.at(self.head()).documents and not self._reader.at(remote).documents:
            raise UpstreamHeld("empty", f"{self._emptiness(remote)} Nothing was applied. {self._way_out(remote)}")

    def refuse_unfit(self, remote: str) -> None:
        """What cannot be taken over even when a person says so.

        A folder that has no documents yet, in a repository of which nothing was ever accepted, is one to begin.

        Raises:
            UpstreamHeld: there are no documents any more, or there can be none.
        """
        if self._objects.folder and self.accepted() is None:
            if folders.obstacle(self._objects, remote):
                raise self._without_folder(remote)
            return
        self.refuse_empty(remote)

    def refuse_unsigned(self, remote: str, signers: Sequence[str]) -> None:
        """Hold each commit that would come in against those who may sign.

        Raises:
            UpstreamHeld: one is not signed, or by somebody else.
        """
        known = self.accepted()
        excluded = [f"^{commit}" for commit in (known, self.head()) if commit]
        options = ("--reverse", "--topo-order", "--parents")
        listed = self._objects.ask("rev-list", *options, commit_hex(remote), *excluded, "--").decode()
        rows = [line.split() for line in listed.splitlines()]
        bad = badly_signed(self._objects, folders.deciding(self._objects, rows), signers)
        if bad:
            commit, why = next(iter(bad.items()))
            raise UpstreamHeld(
                "unsigned",
                f"{len(bad)} commits upstream are not signed by one of spec.allowed_signers, the first is "
                f"{commit[:12]} ({why}). Nothing was applied. Sign them, or take them out of the branch.",
            )

    def incoming(self, remote: str) -> list[str]:
        """The commits that taking ``remote`` over would bring, oldest first: each merge once, the newest ones only.

        Where the documents are in a folder, only those that bring another one.
        """
        known, head = self.accepted(), self.head()
        if known is None:
            return [remote] if not self.has(remote) else []
        most = [] if self._objects.folder else [f"--max-count={_MOST_TOLD}"]
        without = [f"^{known}", f"^{head}", "--"]
        listed = self._objects.ask("rev-list", "--first-parent", "--parents", *most, commit_hex(remote), *without)
        rows = [line.split()[:2] for line in listed.decode().splitlines()]
        return folders.changing(self._objects, rows)[:_MOST_TOLD][::-1]

    def before(self, commit: str) -> str | None:
        """The commit that ``commit`` came after on its branch; None: it is the first."""
        return next(iter(self._parents(commit)), None)

    def accept(self, remote: str, redo_on: RedoOn, *, anyhow: bool = False) -> Replayed:
        """Take ``remote`` over: the branch moves there, and our own commits that it lacks come on top of it.

        Commits that are made meanwhile come along. All refs move at once, or none. ``anyhow``: also where it is no
        continuation of what was accepted; what was accepted and is not in it any more goes.
        """
        head, known = self.head(), self.accepted()
        if known is None and not self._have_common_history(head, remote) and self._is_replaceable(head, remote):
            known = head
        replay, done = self._replay(remote, known, head, redo_on), Replayed(remote)
        without = [remote, *([known] if known else [])]
        if anyhow or not self._is_in_line(head, remote):
            # Most of the work without holding anybody up.
            replay.add(ours(self._objects, head, *without), done, locked=False)
        with writer_lock(self._objects.path):
            for _ in range(_MOST_RACES):
                head = self.head()
                if not anyhow and self._is_in_line(head, remote):
                    done = Replayed(remote if self._objects.is_ancestor(head, remote) else head)
                else:
                    commits = ours(self._objects, head, *without)
                    replay.add([one for one in commits if _is_new(one, done)], done, locked=True)
                if move_refs(self._objects, [*self._commands(done, head, remote)], head):
                    return done
        raise HeadMoved(f"Others pushed to the store {_MOST_RACES} times meanwhile. The next look tries again.")

    def propose(self, evaluate: Evaluate, author: Author, base: Snapshot, authored: int) -> str:
        """A commit on ``base`` that no branch here has: to be pushed to a branch there. Its id.

        Raises:
            Exception: whatever ``evaluate`` raised, or that its edit does not fit; nothing was written.
        """
        draft = self._writer.draft(base)
        draft.add(evaluate, author, None, authored)
        with writer_lock(self._objects.path):
            remove_dead_locks(self._objects.path)
            (commit,) = import_commits(self._objects, draft.commits, base.revision, PROPOSED)
            # Git keeps what no ref names for two weeks, which is longer than a push takes.
            move_refs(self._objects, [f"delete {PROPOSED}"], None)
        return commit

    def pushed(self, commit: str) -> None:
        """Upstream has taken ``commit``."""
        move_refs(self._objects, [f"update {ACCEPTED} {commit_hex(commit)}"], None)

    def dropped(self) -> list[Dropped]:
        """The commits that were left out and that nobody has said to forget, oldest first."""
        listed = self._objects.ask("for-each-ref", f"--format={_SHAPE}", DROPPED)
        rows = (line.split("\0") for line in listed.decode(errors="replace").split("\n") if line)
        found = [self._dropped(commit, int(seconds or 0), reason) for commit, seconds, reason in rows]
        return sorted(found, key=lambda one: (one.at, one.id))

    def forget(self, commit: str) -> str:
        """Keep a commit that was left out no longer; its full id.

        Raises:
            NotFound: no such commit was left out, or several begin so.
        """
        named = [one.id for one in self.dropped() if commit and one.id.startswith(commit)]
        if len(named) != 1:
            raise NotFound(f"`{commit}` names no commit that was left out. `trueup upstream status` lists them.")
        move_refs(self._objects, [f"delete {DROPPED}/{named[0]}"], None)
        return named[0]

    def _replay(self, remote: str, known: str | None, head: str, redo_on: RedoOn) -> Replay:
        base = known or self._common(head, remote)
        before = self._reader.at(base) if base else Snapshot("", {}, {})
        changed = self._reader.at(remote).changed_since(before)
        return Replay(self._objects, self._reader, self._writer, redo_on(remote, changed))

    def _commands(self, done: Replayed, head: str, remote: str) -> Iterator[str]:
        yield f"update {MAIN} {done.tip} {head}"
        yield f"update {ACCEPTED} {commit_hex(remote)}"
        for commit, reason in done.dropped.items():
            yield f"update {DROPPED}/{commit.id} {self._kept(commit, reason)}"
        yield f"delete {REPLAYED}"

    def _kept(self, commit: Ours, reason: str) -> str:
        """An annotated tag, so that the reason stays with the commit."""
        head = (
            f"object {commit.id}\ntype commit\ntag dropped\ntagger {person(TRUEUP).decode()} {int(time.time())} +0000"
        )
        content = f"{head}\n\n{' '.join(reason.split())}\n".encode(errors="replace")
        return self._objects.ask("hash-object", "-t", "tag", "-w", "--stdin", feed=content).decode().strip()

    def _dropped(self, commit: str, seconds: int, reason: str) -> Dropped:
        (found,) = ours(self._objects, commit, *self._parents(commit))[-1:]
        subject = self._objects.ask("log", "-1", "--format=%s", commit_hex(commit), "--").decode(errors="replace")
        return Dropped(commit, found.job, subject.strip(), reason, datetime.fromtimestamp(seconds, UTC))

    def _parents(self, commit: str) -> list[str]:
        return self._objects.ask("log", "-1", "--format=%P", commit_hex(commit), "--").decode().split()

    def _ref(self, name: str) -> str | None:
        try:
            return self._objects.commit_id(name)
        except NotFound:
            return None

    def _is_in_line(self, head: str, remote: str) -> bool:
        return self._objects.is_ancestor(head, remote) or self._objects.is_ancestor(remote, head)

    def _common(self, one: str, other: str) -> str | None:
        answer = self._objects.run("merge-base", commit_hex(one), commit_hex(other))
        return None if answer.status else answer.output.decode().split()[0]

    def _have_common_history(self, one: str, other: str) -> bool:
        return self._common(one, other) is not None

    def is_at_its_beginning(self) -> bool:
        """Whether the store has nothing but its first commit, and nobody else has that."""
        return self.accepted() is None and self._is_first(self.head())

    def is_untouched(self) -> bool:
        """Whether nothing but `trueup init` has written here, and nobody else has it."""
        return self.accepted() is None and self._is_pristine(self.head())

    def _is_replaceable(self, head: str, remote: str) -> bool:
        """Where upstream's folder has no documents yet, ours are what it is to begin with."""
        return self._is_pristine(head) and not (self._objects.folder and not self._reader.at(remote).documents)

    def _is_pristine(self, head: str) -> bool:
        """Whether nothing but `trueup init` has written here: there is nothing that could be lost."""
        return self._is_first(head) and self._reader.at(head).documents.keys() <= {_PLATFORM}

    def _is_first(self, head: str) -> bool:
        return self._objects.ask("rev-list", "--max-count=2", "--parents", commit_hex(head)).split() == [head.encode()]

    def _emptiness(self, remote: str) -> str:
        folder = self._objects.folder
        if folder and (found := folders.obstacle(self._objects, remote)):
            return f"Upstream's {remote[:12]} has {found}, so there are no documents in {folder}."
        return f"Upstream's {remote[:12]} has no documents {f'in {folder}' if folder else 'at all'}."

    def _way_out(self, remote: str) -> str:
        if not self._objects.folder:
            return "Revert the commit that took them away, or correct TRUEUP_UPSTREAM."
        if self.accepted() is None:
            return f"Correct TRUEUP_UPSTREAM_PATH, or put what this store has there: `trueup upstream accept {remote}`."
        return "Revert the commit that took them away. If it moved them, docs/upstream.md says how this store follows."

    def _without_folder(self, remote: str) -> UpstreamHeld:
        folder = self._objects.folder
        if found := folders.obstacle(self._objects, remote):
            return UpstreamHeld(
                "folder-missing",
                f"Upstream's {remote[:12]} has {found}, so the documents cannot be in {folder}. Nothing was pushed. "
                "Correct TRUEUP_UPSTREAM_PATH.",
            )
        return UpstreamHeld(
            "folder-missing",
            f"Upstream's {remote[:12]} has no folder {folder}. Nothing was pushed. Correct TRUEUP_UPSTREAM_PATH, or "
            f"have it made with what this store has: `trueup upstream accept {remote}`.",
        )

    def _not_a_continuation(self, known: str, remote: str) -> UpstreamHeld:
        back = f"`git push` {known[:12]} there again (this store has it as {ACCEPTED})"
        if self._objects.is_ancestor(remote, known):
            return UpstreamHeld(
                "rolled-back",
                f"Upstream went back from {known[:12]} to {remote[:12]}. Nothing was applied. To undo changes, revert "
                f"them by a commit. Else {back}, or follow it back with `trueup upstream accept {remote}`.",
            )
        return UpstreamHeld(
            "rewritten",
            f"Upstream's {remote[:12]} does not contain {known[:12]}, which was accepted: its history was rewritten. "
            f"Nothing was applied. Either {back}, or take it over with `trueup upstream accept {remote}`.",
        )


def _is_new(commit: Ours, done: Replayed) -> bool:
    return commit not in done.moved and commit not in done.dropped
