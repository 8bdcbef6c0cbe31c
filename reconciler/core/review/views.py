"""A review as text, as a pull request's comment, and as data.

All that comes from documents or nodes is shown as it is, and does nothing: no markup, mention, link or control
character of theirs gets through.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from reconciler.core.plan import Step, plan_data
from reconciler.core.review import LOUD, Item, Kind, Review
from reconciler.core.review.effects import Effect, outcome

FORMAT = 1
MARK = "<!-- trueup-plan -->"
"""First line of a comment, by which the next one finds it."""
MOST = 64_000
"""Characters of a comment; GitHub takes 65,536."""
_VALUE = 300
_NAMES = 12


@dataclass(frozen=True)
class Group:
    """Items that say the same but for their targets."""

    item: Item
    targets: tuple[str, ...]


def grouped(items: Iterable[Item]) -> list[Group]:
    found: dict[tuple[object, ...], list[Item]] = {}
    for item in items:
        # What is loud is said of each on its own.
        alone = item.target if item.kind in LOUD | {Kind.BROKEN} else None
        same = (item.kind, alone, item.facts, item.outcome, item.effect, item.notes, item.action)
        found.setdefault(same, []).append(item)
    return [Group(same[0], tuple(item.target for item in same)) for same in found.values()]


# As text


def text(review: Review) -> str:
    """The review for a terminal or a log; nothing is cut."""
    lines = [plain(f"Plan of {review.base[:12]} → {review.head[:12]}: {review.total}")]
    for item in review.items:
        lines += ["", *_text_of(item)]
    if review.pending:
        lines += ["", "Due without this change, too:"]
        lines += [f"  {step.action.verb} {step.action.target}: {outcome(step)}" for step in review.pending]
    lines += ["", *(f"{name}: {value}" for name, value in _footer(review))]
    return "\n".join(plain(line) for line in lines) + "\n"


def _text_of(item: Item) -> Iterator[str]:
    sign = "!!! " if item.kind in LOUD or item.kind is Kind.BROKEN else ""
    verb = f" ({item.action})" if item.action else ""
    yield f"{sign}{_title(item.kind)} {item.target}{verb}{f': {item.outcome}' if item.outcome else ''}"
    for fact in item.facts:
        before = "" if fact.before is None else f"{fact.before} → "
        yield f"  {fact.what}: {before}{fact.after}"
    for name, value in _effects(item):
        yield f"  {name}: {value}"
    for note in item.notes:
        yield f"  {note}"


# As a comment


def markdown(review: Review, most: int = MOST) -> str:
    """The review as a comment of ``most`` characters at most: what is loud, total and digest are cut last."""
    head = [MARK, "### Trueup plan", "", f"**{review.total}**", ""]
    foot = ["", *_markdown_footer(review)]
    groups = grouped(review.items)
    loud = [group for group in groups if group.item.kind in LOUD]
    quiet = [group for group in groups if group.item.kind not in LOUD]
    room = most - _length(head) - _length(foot) - 400
    loud_lines, room = _fitting(loud, room, _loud_block)
    quiet_lines, room = _fitting(quiet, room, _quiet_block)
    pending = _pending(review.pending)
    if _length(pending) > room:
        pending = [f"{len(review.pending)} more steps are due without this change, too.", ""]
    warning = ["", "---", "", "#### ⚠️ Look twice", ""] if loud else []
    return "\n".join([*head, *quiet_lines, *pending, *warning, *loud_lines, *foot]) + "\n"


def _fitting(groups: list[Group], room: int, block: Any) -> tuple[list[str], int]:
    lines: list[str] = []
    for at, group in enumerate(groups):
        more = block(group)
        if _length(more) > room:
            left = sum(len(one.targets) for one in groups[at:])
            return [
                *lines,
                "",
                f"**… and {left} more, which do not fit here: the job's log has all of them.**",
                "",
            ], room
        lines += more
        room -= _length(more)
    return lines, room


def _length(lines: list[str]) -> int:
    return sum(len(line) + 1 for line in lines)


def _quiet_block(group: Group) -> list[str]:
    item = group.item
    if item.kind is Kind.BROKEN:
        return [f"- ❌ **cannot be used** {code(item.notes[0])}", ""]
    summary = f"<summary><b>{_title(item.kind)}</b> {_named(group)}{_short(item)}</summary>"
    return ["<details>", summary, "", *_details(group), "", "</details>", ""]


def _loud_block(group: Group) -> list[str]:
    item = group.item
    return [f"**{_title(item.kind).upper()}** {code(item.target)}", "", *_details(group), ""]


def _named(group: Group) -> str:
    if len(group.targets) == 1:
        return html(group.targets[0])
    noun = {Kind.NODE: "nodes"}.get(group.item.kind, "environments")
    return f"{len(group.targets)} {noun}"


def _short(item: Item) -> str:
    """The first facts, for whoever does not unfold."""
    told = [f"{fact.what} {fact.before} → {fact.after}" for fact in item.facts if fact.before is not None][:2]
    words = "; ".join(told) + ("; …" if len(item.facts) > len(told) and told else "")
    return f" · {html(words, 120)}" if words else ""


def _details(group: Group) -> list[str]:
    item = group.item
    lines = []
    if len(group.targets) > 1:
        more = len(group.targets) - _NAMES
        lines += [", ".join(map(code, group.targets[:_NAMES])) + (f" and {more} more" if more > 0 else ""), ""]
    if item.facts:
        lines += ["| what | now | then |", "|---|---|---|"]
        lines += [f"| {html(fact.what)} | {code(fact.before)} | {code(fact.after)} |" for fact in item.facts]
        lines += [""]
    rows = [("result", item.outcome), *_effects(item)] if item.outcome else list(_effects(item))
    lines += [f"- **{name}**: {prose(value)}" for name, value in rows]
    return [*lines, *(f"- {prose(note)}" for note in item.notes)]


def _pending(steps: tuple[Step, ...]) -> list[str]:
    if not steps:
        return []
    title = f"<summary>{len(steps)} more due without this change, too</summary>"
    lines = [f"- {step.action.verb} {code(step.action.target)}: {prose(outcome(step))}" for step in steps[:50]]
    more = [f"- … and {len(steps) - 50} more"] if len(steps) > 50 else []
    return ["<details>", title, "", *lines, *more, "", "</details>", ""]


def _markdown_footer(review: Review) -> Iterator[str]:
    yield "<sub>"
    yield "<br>".join(f"{name}: <code>{html(value)}</code>" for name, value in _footer(review))
    yield "</sub>"


# What both have


def _title(kind: Kind) -> str:
    return {
        Kind.BROKEN: "Broken",
        Kind.CREATED: "Create",
        Kind.CHANGED: "Change",
        Kind.NODE: "Node",
        Kind.PLATFORM: "Platform",
        Kind.LEFT: "No longer looked after",
        Kind.REPLACED: "Content replaced",
        Kind.DESTROYED: "Destroyed",
    }[kind]


def _effects(item: Item) -> Iterator[tuple[str, str]]:
    if item.kind in {Kind.BROKEN, Kind.PLATFORM} or (item.kind is Kind.NODE and item.action is None):
        return
    effect: Effect = item.effect
    if effect.destroys:
        yield "GONE afterwards", effect.destroys
    yield "backup", effect.backup
    yield "downtime", effect.downtime


def _footer(review: Review) -> Iterator[tuple[str, str]]:
    if digest := review.digest:
        yield "digest", digest
    elif review.plan.stalled:
        yield "digest", "none, while a document cannot be used"
    snapshot = review.snapshot
    if snapshot is None:
        yield "observed", "nothing: only documents were compared (--snapshot)"
        return
    seen = sorted(node.checked_at for node in snapshot.nodes)
    yield (
        "observed",
        f"{_minute(seen[0])} or later, {len(seen)} node{'s' * (len(seen) != 1)}" if seen else "no node yet",
    )
    silent = [one.node for one in review.plan.silent]
    if silent:
        yield "silent nodes", ", ".join(silent)
    yield "compared", f"{review.base[:12]} → {review.head[:12]}"


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def plain(text: str) -> str:
    """``text`` on one line, without what a terminal or a reader would obey instead of show."""
    # What Python calls printable has nothing of it.
    if text.isprintable():
        return text
    return "".join("�" if unicodedata.category(char) in _OBEYED else char for char in text)


_OBEYED = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def code(value: str | None, most: int = _VALUE) -> str:
    """``value`` as a code span that fits into a table, too."""
    if not value:
        return ""
    shown = plain(value if len(value) <= most else f"{value[: most - 1]}…")
    return f"`{shown.replace('`', 'ˋ').replace('|', '¦')}`"


def html(value: str, most: int = _VALUE) -> str:
    """``value`` as text: what Markdown, HTML, links and mentions are made of becomes entities."""
    shown = plain(value if len(value) <= most else f"{value[: most - 1]}…")
    # Forges look for mentions, addresses and emoji in what was rendered, where an entity is the character again.
    shown = re.sub(r":(?=//|[\w+-]+:)", "：", shown.translate(_LOOKALIKES))
    return re.sub(r"[^\w ,;()…→“”?.%+/:：＠＃！-]|_|\.(?=\S)", lambda found: f"&#{ord(found[0])};", shown)


def prose(value: str, most: int = _VALUE) -> str:
    """A sentence, with what is in backticks as code spans; neither does anything else."""
    parts = (value if len(value) <= most else f"{value[: most - 1]}…").split("`")
    closed = len(parts) - 1 - (len(parts) - 1) % 2
    shown = [code(part) if at % 2 else html(part) for at, part in enumerate(parts[: closed + 1])]
    return "".join([*shown, *(html(f"`{part}") for part in parts[closed + 1 :])])


_LOOKALIKES = str.maketrans("@#!", "＠＃！")


# As data


def review_data(review: Review) -> dict[str, Any]:
    """The review as JSON data; ``docs/pull-requests.md`` has its shape."""
    return {
        "format": FORMAT,
        "base": review.base,
        "head": review.head,
        "digest": review.digest,
        "total": {
            "line": review.total,
            "unchanged": review.unchanged,
            **{k.value: review.counts.get(k, 0) for k in Kind},
        },
        "observed": {"made_at": review.snapshot.made_at.isoformat(), "revision": review.snapshot.revision}
        if review.snapshot
        else None,
        "changes": [
            {
                "kind": item.kind.value,
                "target": item.target,
                "node": item.node or None,
                "action": item.action,
                "outcome": item.outcome or None,
                "facts": [fact.data() for fact in item.facts],
                "backup": item.effect.backup,
                "downtime": item.effect.downtime,
                "destroys": item.effect.destroys,
                "notes": list(item.notes),
            }
            for item in review.items
        ],
        "pending": [
            {"action": step.action.verb, "target": step.action.target, "outcome": outcome(step)}
            for step in review.pending
        ],
        "plan": plan_data(review.plan),
    }
