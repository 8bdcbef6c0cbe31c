"""What an environment that shall go back to former content needs: the backup, and somebody's word for it."""

from __future__ import annotations

from uuid import UUID

from reconciler.core.actions import KeptContent
from reconciler.core.entries import Document, EnvironmentEntry, Stalled
from reconciler.state import State

FARTHEST = 200
"""Commits to a document behind which no confirmation is looked for."""


def kept_content(state: State, environment_id: UUID, content_id: UUID) -> KeptContent | None:
    """The newest full backup that has this content of the environment."""
    backup = state.records.backups.of_content(environment_id, content_id)
    return KeptContent(backup.id, backup.created_at) if backup else None


def is_confirmed(state: State, environment: EnvironmentEntry, content_id: UUID) -> bool:
    """Whether the commit that brought this content id into the document confirms that it does."""
    bringing = None
    for change, document in state.repository.changes(environment.path, FARTHEST):
        if _content(document) != str(content_id):
            break
        bringing = change
    return bringing is not None and environment.key in bringing.confirmed


def _content(document: Document | Stalled | None) -> str | None:
    data = document.data if isinstance(document, Document) else None
    spec = data.get("spec") if isinstance(data, dict) else None
    content = spec.get("content") if isinstance(spec, dict) else None
    return str(content["id"]) if isinstance(content, dict) and "id" in content else None
