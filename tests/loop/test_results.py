"""What a run says to a person, in a job's result."""

from typing import Any

from reconciler.loop.results import LONGEST_NOTE, MOST_NOTES, notes
from reconciler.nodes.outcome import RunResult, TaskResult


def run(*answers: dict[str, Any]) -> RunResult:
    results = tuple(TaskResult("one", "a task", "ok", changed=True, data=answer) for answer in answers)
    return RunResult("succeeded", None, "", {}, results, "", 1.0)


def test_notes_of_all_tasks_in_their_order() -> None:
    assert notes(run({"notes": ["a", "b"]}, {}, {"notes": []}, {"notes": ["c"]})) == ["a", "b", "c"]


def test_notes_are_bounded_and_nothing_that_a_terminal_obeys() -> None:
    told = notes(run({"notes": ["\x1b[2J\n" + "x" * 100_000, "password = hunter22"]}, {"notes": ["y"] * 100_000}))
    assert len(told) == MOST_NOTES
    assert all(len(note) <= LONGEST_NOTE and note.isprintable() for note in told)
    assert "hunter22" not in told[1]


def test_what_is_no_list_of_texts_says_nothing() -> None:
    assert notes(run({"notes": "text"}, {"notes": {"a": 1}}, {"notes": [1, None, ["x"], "good"]})) == ["good"]
