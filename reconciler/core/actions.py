"""What can be done to a node. Each action names its playbook and brings its variables."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar
from uuid import UUID, uuid5

from reconciler.core.variables import EnvironmentVariables, NodeVariables


@dataclass(frozen=True)
class ProvisionNode:
    """Bring a host to the baseline."""

    playbook: ClassVar[str] = "node.yml"
    verb: ClassVar[str] = "provision"
    node: str
    node_id: UUID
    variables: NodeVariables

    @property
    def target(self) -> str:
        return self.node


@dataclass(frozen=True)
class _OnEnvironment:
    node: str
    node_id: UUID
    environment_id: UUID
    variables: EnvironmentVariables
    held_options: tuple[str, ...] = field(default=(), kw_only=True)
    """Options of WordPress that are left as they are, whatever they are."""

    @property
    def target(self) -> str:
        return f"{self.variables.site}/{self.variables.slug}"


@dataclass(frozen=True)
class ConfigureEnvironment(_OnEnvironment):
    """Make one environment what its document says, from whatever is there."""

    playbook: ClassVar[str] = "environment.yml"
    verb: ClassVar[str] = "configure"


@dataclass(frozen=True)
class CloneEnvironment(_OnEnvironment):
    """Bring code and content from another environment of the site, then configure."""

    playbook: ClassVar[str] = "clone.yml"
    verb: ClassVar[str] = "clone"


@dataclass(frozen=True)
class ImportContent(_OnEnvironment):
    """Bring an archive's content and code, then configure."""

    playbook: ClassVar[str] = "import.yml"
    verb: ClassVar[str] = "import"


@dataclass(frozen=True)
class RestoreBackup(_OnEnvironment):
    """Bring a backup's content, and its code where it has some, then configure."""

    playbook: ClassVar[str] = "restore.yml"
    verb: ClassVar[str] = "restore"


@dataclass(frozen=True)
class KeptContent:
    """The full backup that was the last to be taken of a content before that was left for another one."""

    backup_id: UUID
    taken_at: datetime


TEXT_ALONE = (
    "Orders and comments since then go, too: to take back the text of a search-replace alone, do not revert it but "
    "replace it the other way round."
)


@dataclass(frozen=True)
class ReturnContent(_OnEnvironment):
    """Bring back content that was left, out of the backup that has it, then configure."""

    playbook: ClassVar[str] = "restore.yml"
    verb: ClassVar[str] = "return"
    kept: KeptContent
    leaves_replacement: bool = False
    """What is left is what a search-replace made."""

    @property
    def course(self) -> str:
        """What will happen, for a person who reads the plan."""
        told = (
            f"Database and uploads go back to backup {self.kept.backup_id} of {moment(self.kept.taken_at)}, in which "
            "is what was left; code goes back by its symbolic link. What was written since is no longer served: it is "
            "in a full backup that is taken first."
        )
        return f"{told} {TEXT_ALONE}" if self.leaves_replacement else told

    @property
    def staged(self) -> UUID:
        """Under which id it is got ready on the node, where its own is spent."""
        return uuid5(UUID(self.variables.content.id), str(self.kept.backup_id))


@dataclass(frozen=True)
class PromoteEnvironment(_OnEnvironment):
    """Bring another environment's code and what changed in its content, then configure."""

    playbook: ClassVar[str] = "promote.yml"
    verb: ClassVar[str] = "promote"


@dataclass(frozen=True)
class ReplaceText(_OnEnvironment):
    """Replace a text in the tables in use, then configure."""

    playbook: ClassVar[str] = "environment.yml"
    verb: ClassVar[str] = "search-replace"


@dataclass(frozen=True)
class DeployRelease(_OnEnvironment):
    """Bring code of a source, then configure."""

    playbook: ClassVar[str] = "deploy.yml"
    verb: ClassVar[str] = "deploy"


@dataclass(frozen=True)
class UpdateWordPress(_OnEnvironment):
    """Update into a new release, then configure."""

    playbook: ClassVar[str] = "updates.yml"
    verb: ClassVar[str] = "update"

    @property
    def course(self) -> str:
        """What will happen, for a person who reads the plan."""
        scope = self.variables.release.scope or "all"
        what = "WordPress itself, plugins and themes" if scope == "all" else _PARTS[scope]
        return (
            f"Brings {what} to what the mirror offers by then: rehearsed on a copy of files and database that nobody "
            "visits; if that is healthy, a full backup, then the switch. If not, nothing changes."
        )


def moment(at: datetime) -> str:
    """A time for a person."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


_PARTS = {"core": "WordPress itself", "plugins": "plugins", "themes": "themes"}


@dataclass(frozen=True)
class AdoptChanges(_OnEnvironment):
    """Make a release of another one as it is on the node by now, then configure."""

    playbook: ClassVar[str] = "environment.yml"
    verb: ClassVar[str] = "adopt"


@dataclass(frozen=True)
class DiscardChanges(_OnEnvironment):
    """Make a release of another one as it was released, then configure."""

    playbook: ClassVar[str] = "environment.yml"
    verb: ClassVar[str] = "discard"


@dataclass(frozen=True)
class RehearseUpdate(_OnEnvironment):
    """Make the updated release beside what is served and try it on a copy. Never part of a plan: UpdateWordPress is."""

    playbook: ClassVar[str] = "rehearsal.yml"
    verb: ClassVar[str] = "rehearse"


@dataclass(frozen=True)
class PurgeCache(_OnEnvironment):
    """Empty both caches of one environment. Never part of a plan: a purge leaves no trace in what should be."""

    playbook: ClassVar[str] = "purge.yml"
    verb: ClassVar[str] = "purge"


@dataclass(frozen=True)
class RemoveEnvironment(_OnEnvironment):
    """Take all of one environment off its node. Never part of a plan: no document asks for it."""

    playbook: ClassVar[str] = "remove.yml"
    verb: ClassVar[str] = "remove"


@dataclass(frozen=True)
class CompareContent(_OnEnvironment):
    """Compare an environment's content and code with another's. Never part of a plan: nothing is changed."""

    playbook: ClassVar[str] = "drift.yml"
    verb: ClassVar[str] = "compare"


@dataclass(frozen=True)
class CheckHealth(_OnEnvironment):
    """Ask whether an environment serves. Never part of a plan: nothing is changed."""

    playbook: ClassVar[str] = "health.yml"
    verb: ClassVar[str] = "check"


@dataclass(frozen=True)
class SearchText(_OnEnvironment):
    """Count what replacing a text would change. Never part of a plan: nothing is changed."""

    playbook: ClassVar[str] = "search_replace.yml"
    verb: ClassVar[str] = "search"


@dataclass(frozen=True)
class BackUp(_OnEnvironment):
    """Send database and files to storage. Never part of a plan: it changes nothing."""

    playbook: ClassVar[str] = "backup.yml"
    verb: ClassVar[str] = "back up"


@dataclass(frozen=True)
class DrillBackup(_OnEnvironment):
    """Restore a backup into a throwaway copy. Never part of a plan: what is served is not touched."""

    playbook: ClassVar[str] = "drill.yml"
    verb: ClassVar[str] = "drill"


Declared = (
    ConfigureEnvironment
    | CloneEnvironment
    | ImportContent
    | RestoreBackup
    | PromoteEnvironment
    | ReplaceText
    | DeployRelease
    | UpdateWordPress
    | AdoptChanges
    | DiscardChanges
)
"""What follows from a document and the node alone."""

Desired = Declared | ReturnContent
"""What a plan may hold for an environment."""

BRINGING: dict[str, type[CloneEnvironment | ImportContent | RestoreBackup | PromoteEnvironment | ReplaceText]] = {
    "clone": CloneEnvironment,
    "import": ImportContent,
    "restore": RestoreBackup,
    "promote": PromoteEnvironment,
    "search-replace": ReplaceText,
}
"""By the origin of the content: what brings it, with the code that belongs to it."""

DERIVING: dict[str, type[UpdateWordPress | AdoptChanges | DiscardChanges]] = {
    "update": UpdateWordPress,
    "adopt": AdoptChanges,
    "discard": DiscardChanges,
}
"""By the origin of a release: what makes it of another release that the node has."""

BACKED_UP = (ImportContent, RestoreBackup, ReturnContent, DiscardChanges, ReplaceText)
"""Before these, what the environment has is backed up whole; before an update too, once it was rehearsed. A promotion
asks for a backup at its gate."""

Action = (
    ProvisionNode
    | Desired
    | PurgeCache
    | CompareContent
    | CheckHealth
    | SearchText
    | BackUp
    | RemoveEnvironment
    | RehearseUpdate
    | DrillBackup
)
