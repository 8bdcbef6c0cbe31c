"""A plan as text for a terminal and as Markdown for a pull request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from reconciler.core.actions import ReturnContent, UpdateWordPress
from reconciler.core.changes import Change
from reconciler.core.plan import Orphan, Plan, Step, Verdict
from reconciler.core.visible import visible

_TOLD = (UpdateWordPress, ReturnContent)
"""What would happen is more than the changes say."""

_WORDS = {
    Verdict.APPLY: "will be applied",
    Verdict.REPORT: "reported only",
    Verdict.PAUSED: "paused",
    Verdict.WAITING: "waiting",
    Verdict.BLOCKED: "blocked",
}


def total(plan: Plan) -> str:
    """The plan in one line: ``2 to apply, 1 blocked; 1 node silent``."""
    counts = Counter(step.verdict for step in plan.steps)
    words = {
        Verdict.APPLY: "to apply",
        Verdict.REPORT: "to report",
        Verdict.PAUSED: "paused",
        Verdict.WAITING: "waiting",
        Verdict.BLOCKED: "blocked",
    }
    parts = [f"{counts[verdict]} {word}" for verdict, word in words.items() if counts[verdict]]
    line = ", ".join(parts) or "Nothing to do: what was observed is what is desired"
    extras = ((len(plan.silent), "silent node"), (len(plan.stalled), "stalled document"), (len(plan.orphans), "orphan"))
    return "; ".join([line, *(f"{n} {noun}{'s' * (n > 1)}" for n, noun in extras if n)]) + "."


def text(plan: Plan) -> str:
    """The plan for a terminal, desired and observed side by side."""
    lines = [f"Plan at {plan.revision[:12]}: {total(plan)}"]
    for step in plan.steps:
        lines += ["", *_step_lines(step)]
    lines += _remarks(plan)
    # Nodes and sites have named much of it.
    return "\n".join(map(visible, lines)) + "\n"


def _step_lines(step: Step) -> Iterator[str]:
    reason = f": {step.reason}" if step.reason else ""
    yield f"{step.action.verb} {step.action.target} on {step.action.node} ({_WORDS[step.verdict]}{reason})"
    if isinstance(step.action, _TOLD):
        yield f"  {step.action.course}"
    width = max(len(change.field) for change in step.changes)
    for change in step.changes:
        note = f"; {change.held}" if change.held else "" if change.heals else "; applying does not mend it"
        yield (
            f"  {change.field:<{width}}  desired {change.desired}  ↔  observed {change.observed}"
            f"  [{change.cause}{note}]"
        )


def _remarks(plan: Plan) -> list[str]:
    lines = [
        f"silent {silent.node}: {silent.reason} Unknown: {', '.join(silent.environments) or 'no environments'}."
        for silent in plan.silent
    ]
    lines += [_orphan_line(orphan) for orphan in plan.orphans]
    lines += [f"stalled {stalled}" for stalled in plan.stalled]
    return ["", *lines] if lines else []


def _orphan_line(orphan: Orphan) -> str:
    name = f"{orphan.key} ({orphan.environment_id})" if orphan.key else orphan.environment_id
    line = f"orphan {name} on {orphan.node}: no document defines it; nothing is done about it."
    return f"{line} `trueup remove {orphan.key}` backs it up and takes it away." if orphan.key else line


def markdown(plan: Plan) -> str:
    """The plan as a pull request's comment."""
    lines = [f"### Plan at `{plan.revision[:12]}`", "", f"**{total(plan)}**"]
    for step in plan.steps:
        reason = f": {step.reason}" if step.reason else ""
        lines += [
            "",
            f"#### {step.action.verb} `{step.action.target}` on `{step.action.node}` — {_WORDS[step.verdict]}{reason}",
            "",
            *([step.action.course, ""] if isinstance(step.action, _TOLD) else []),
            "| field | desired | observed | cause |",
            "|---|---|---|---|",
            *(
                f"| `{change.field}` | {_cell(change.desired)} | {_cell(change.observed)} | {_why(change)} |"
                for change in step.changes
            ),
        ]
    lines += [line and f"- {line}" for line in _remarks(plan)]
    return "\n".join(map(visible, lines)) + "\n"


def _why(change: Change) -> str:
    return f"{change.cause}, {_cell(str(change.held))}" if change.held else str(change.cause)


def _cell(text: str) -> str:
    return f"`{text.replace('|', '¦').replace('`', 'ˋ')}`"
