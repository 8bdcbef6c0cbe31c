"""What can be done to a node. Each action names its playbook and brings its variables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

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

    @property
    def target(self) -> str:
        return f"{self.variables.site}/{self.variables.slug}"


@dataclass(frozen=True)
class ConfigureEnvironment(_OnEnvironment):
    """Make one environment what its document says, from whatever is there."""

    playbook: ClassVar[str] = "environment.yml"
    verb: ClassVar[str] = "configure"


@dataclass(frozen=True)
class PurgeCache(_OnEnvironment):
    """Empty both caches of one environment. Never part of a plan: a purge leaves no trace in what should be."""

    playbook: ClassVar[str] = "purge.yml"
    verb: ClassVar[str] = "purge"


Action = ProvisionNode | ConfigureEnvironment | PurgeCache
