"""An API operation and the fleet become an edit of documents, or a conflict.

Pure: new ids and the time come as arguments, so that an intent kept in a job's row gives the same documents when a
crash makes us evaluate it again. Statuses come in as data: what is busy is known to the records, not to Git.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from reconciler.core.fleet import Fleet
from reconciler.core.intents import caches, code, content, domains, nodes, removals, sites
from reconciler.core.intents.caches import SetCache
from reconciler.core.intents.code import Adopt, Deploy, Discard, RecordVersions, Rollback, Update
from reconciler.core.intents.content import ImportSite, Promote, Restore, SearchReplace
from reconciler.core.intents.domains import AddDomain, RemoveDomain
from reconciler.core.intents.edits import Edit, KeyPath, Statuses, refuse_unready, refuse_untouchable
from reconciler.core.intents.nodes import AddNode
from reconciler.core.intents.options import AdoptOptions, adopt_options
from reconciler.core.intents.removals import RemoveEnvironment, RemoveSite
from reconciler.core.intents.returns import is_all, stay, take_back
from reconciler.core.intents.sites import CreateEnvironment, CreateSite, source_of

__all__ = [
    "AddDomain",
    "AddNode",
    "Adopt",
    "AdoptOptions",
    "CreateEnvironment",
    "CreateSite",
    "Deploy",
    "Discard",
    "Edit",
    "ImportSite",
    "Intent",
    "KeyPath",
    "Promote",
    "RecordVersions",
    "RemoveDomain",
    "RemoveEnvironment",
    "RemoveSite",
    "Restore",
    "Rollback",
    "SearchReplace",
    "SetCache",
    "Update",
    "evaluate",
    "is_all",
    "refuse_unready",
    "refuse_untouchable",
    "source_of",
    "stay",
    "take_back",
]

Intent = Annotated[
    CreateSite
    | CreateEnvironment
    | SetCache
    | Deploy
    | Rollback
    | Update
    | Adopt
    | AdoptOptions
    | Discard
    | RecordVersions
    | ImportSite
    | Restore
    | Promote
    | SearchReplace
    | AddDomain
    | RemoveDomain
    | RemoveEnvironment
    | RemoveSite
    | AddNode,
    Field(discriminator="operation"),
]


def evaluate(intent: Intent, fleet: Fleet, statuses: Statuses, now: datetime) -> Edit:  # noqa: PLR0911, PLR0912 (one a case)
    """The edit that carries ``intent`` out on this fleet.

    Raises:
        Conflict: it doesn't go together with what is there.
        NotFound: it names a resource that isn't there.
    """
    match intent:
        case CreateSite():
            return sites.create_site(intent, fleet)
        case CreateEnvironment():
            return sites.create_environment(intent, fleet, statuses, now)
        case SetCache():
            return caches.set_cache(intent, fleet, statuses, now)
        case Deploy():
            return code.deploy(intent, fleet, statuses, now)
        case Rollback():
            return code.rollback(intent, fleet, statuses, now)
        case Update():
            return code.update(intent, fleet, statuses, now)
        case Adopt():
            return code.adopt(intent, fleet, statuses, now)
        case AdoptOptions():
            return adopt_options(intent, fleet, statuses, now)
        case Discard():
            return code.discard(intent, fleet, statuses, now)
        case RecordVersions():
            return code.record_versions(intent, fleet)
        case ImportSite():
            return content.import_site(intent, fleet, statuses, now)
        case Restore():
            return content.restore(intent, fleet, statuses, now)
        case Promote():
            return content.promote(intent, fleet, statuses, now)
        case SearchReplace():
            return content.search_replace(intent, fleet, statuses, now)
        case AddDomain():
            return domains.add_domain(intent, fleet, statuses, now)
        case RemoveDomain():
            return domains.remove_domain(intent, fleet, statuses, now)
        case RemoveEnvironment():
            return removals.remove_environment(intent, fleet, statuses, now)
        case RemoveSite():
            return removals.remove_site(intent, fleet, statuses, now)
        case AddNode():
            return nodes.add_node(intent, fleet)
