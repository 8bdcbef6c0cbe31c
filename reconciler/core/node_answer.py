"""Reads what a node says of itself. A node is a stranger: what it says is measured before it is understood.

What is said of one environment and cannot be used is set aside, with why; the others go on. It is *unknown* then, and
not missing: nothing is decided for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError

from reconciler.core.observed import ObservedEnvironment, ObservedNode
from reconciler.core.visible import visible

MOST_BYTES = 16 << 20
"""Of a whole answer."""
MOST_VALUES = 400_000
"""Values and keys in a whole answer."""
LONGEST_TEXT = 400_000
"""Bytes of one text as JSON has it: an option of WordPress in a foreign alphabet takes six for a character."""
DEEPEST = 12
MOST_ENVIRONMENTS = 5_000
MOST_TOLD = 20
"""Of the environments that are set aside, so many are told apart."""
LONGEST_REASON = 300
_TEXT = re.compile(rb'[^"]+')
_M = TypeVar("_M", bound=BaseModel)


class AnswerRefused(ValueError):
    """It cannot be understood, or is no answer that a node gives. The message says why, on one short line."""


def read_answer(answer: bytes) -> ObservedNode:
    """The node with all its environments, those that are set aside in ``unusable``.

    Raises:
        AnswerRefused: nothing of it can be used.
    """
    data = read_object(answer)
    environments = data.pop("environments", {})
    if not isinstance(environments, dict) or len(environments) > MOST_ENVIRONMENTS:
        raise AnswerRefused(f"environments are no object of {MOST_ENVIRONMENTS} at most.")
    data.pop("unusable", None)
    usable, unusable = _sorted(environments)
    node = understood(ObservedNode, data)
    return node.model_copy(update={"environments": usable, "unusable": unusable})


def read_object(answer: bytes) -> dict[str, Any]:
    """A JSON object that was measured: its size, its depth, how many values it has and how long they are.

    Raises:
        AnswerRefused: it is none, or larger than any answer.
    """
    _measure(answer)
    try:
        data = json.loads(answer.decode(), parse_constant=_no_number)
    except RecursionError as error:
        raise AnswerRefused("it is nested too deep.") from error
    except ValueError as error:
        raise AnswerRefused(f"it is no JSON: {visible(str(error), 100)}.") from error
    if not isinstance(data, dict):
        raise AnswerRefused("it is no object.")
    _refuse_strange(data)
    return data


def understood(model: type[_M], data: Any) -> _M:
    """``data`` as the model has it.

    Raises:
        AnswerRefused: it is of another shape, or exceeds a bound.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise AnswerRefused(visible(f"{where} {first['msg']}", LONGEST_REASON)) from error


def _measure(answer: bytes) -> None:
    """Counted in the bytes themselves: what is refused here never takes more memory than it came with."""
    if len(answer) > MOST_BYTES:
        raise AnswerRefused(f"it has more than {MOST_BYTES >> 20} MiB.")
    if sum(answer.count(mark) for mark in (b",", b"[", b"{")) > MOST_VALUES or answer.count(b'"') > 2 * MOST_VALUES:
        raise AnswerRefused(f"it has more than {MOST_VALUES} values.")
    if any(found.end() - found.start() > LONGEST_TEXT for found in _TEXT.finditer(answer)):
        raise AnswerRefused(f"a text in it has more than {LONGEST_TEXT} bytes.")


def _refuse_strange(value: Any) -> None:
    """Texts that cannot be written down again, and what is nested deeper than any answer."""
    level = [value]
    for _ in range(DEEPEST):
        for one in level:
            if isinstance(one, str) and not one.isascii():
                _refuse_half(one)
            elif isinstance(one, dict):
                for key in one:
                    _refuse_half(key)
        level = [inner for one in level for inner in _inner(one)]
        if not level:
            return
    raise AnswerRefused("it is nested too deep.")


def _inner(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def _refuse_half(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise AnswerRefused("a text in it is no Unicode.") from error


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _sorted(said: Mapping[str, Any]) -> tuple[dict[str, ObservedEnvironment], dict[str, str]]:
    """What can be used and, with why, what cannot."""
    usable: dict[str, ObservedEnvironment] = {}
    refused: dict[str, str] = {}
    for key, value in said.items():
        if not _is_id(key):
            refused[visible(key, 60)] = "that is no environment's id."
            continue
        try:
            usable[key] = understood(ObservedEnvironment, value)
        except AnswerRefused as error:
            refused[key] = f"what the node says of it cannot be used: {error}"
    return usable, _bounded(refused)


def _bounded(refused: dict[str, str]) -> dict[str, str]:
    """Every id: none of them is to be taken for missing. Of what is none, some."""
    ids = {key: reason for key, reason in refused.items() if _is_id(key)}
    return ids | dict([one for one in refused.items() if one[0] not in ids][:MOST_TOLD])


def _is_id(key: str) -> bool:
    try:
        return str(UUID(key)) == key
    except ValueError:
        return False
