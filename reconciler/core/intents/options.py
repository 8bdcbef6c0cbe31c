"""WordPress's options: what was set there becomes what the document says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import Conflict
from reconciler.core.fleet import Fleet
from reconciler.core.intents.edits import BaseIntent, Edit, KeyPath, Statuses, refuse_unready
from reconciler.core.options import Options, hidden_copy

Found = Mapping[str, str | None]
"""What WordPress has, by option; None: it has none."""

_OPTIONS: TypeAdapter[dict[str, str]] = TypeAdapter(Options)


class AdoptOptions(BaseIntent):
    """Declare the options as they are in WordPress by now."""

    operation: Literal["adopt_options"] = "adopt_options"
    environment_id: UUID
    options: Found


def adopt_options(intent: AdoptOptions, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:
    environment = fleet.environment(intent.environment_id)
    refuse_unready(environment, statuses, now)
    return with_options(Edit(message=f"Adopt what was set in {environment.key}"), environment, intent.options)


def with_options(edit: Edit, environment: EnvironmentEntry, found: Found) -> Edit:
    """The edit, which then also declares what was found. An option that is declared no more by now stays so.

    Raises:
        Conflict: a document cannot hold one of the values.
    """
    declared = environment.manifest.spec.options
    values = {name: value for name, value in found.items() if value is not None and name in declared}
    gone = {name for name, value in found.items() if value is None and name in declared}
    kept = {name: value for name, value in declared.items() if name not in gone}
    _refuse_unfit(environment, {**kept, **values})
    assign: dict[KeyPath, Any] = dict(edit.assign.get(environment.path, {}))
    assign |= {("spec", "options", name): value for name, value in values.items()}
    unset = edit.unset.get(environment.path, frozenset()) | {("spec", "options", name) for name in gone}
    return replace(
        edit,
        assign={**edit.assign, environment.path: assign} if assign else edit.assign,
        unset={**edit.unset, environment.path: unset} if unset else edit.unset,
    )


def _refuse_unfit(environment: EnvironmentEntry, options: Mapping[str, str]) -> None:
    try:
        _OPTIONS.validate_python(dict(options))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name, why = problem["loc"][0] if problem["loc"] else "", problem["msg"].removeprefix("Value error, ")
        raise Conflict(
            f"Option {name} of {environment.key} cannot be adopted: its value {why}. Take it out of spec.options."
        ) from error
    if public := hidden_copy(environment.manifest.spec.type.value, options):
        raise Conflict(
            f"Option {public} of {environment.key} cannot be adopted: search engines are kept away from a "
            f"{environment.manifest.spec.type} environment. Apply it, and it is set back."
        )
