"""Ansible's inventory as desired state gives it: hosts, groups and variables, from a fleet to plain data.

Operators get it from ``inventory/desired_state.py``, the reconciler from ``nodes.runner``: the same hosts with the
same variables. Every string goes out tagged as unsafe, because Ansible takes any other one for a template.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from reconciler.core.entries import EnvironmentEntry, NodeEntry
from reconciler.core.fleet import Fleet
from reconciler.core.variables import EnvironmentVariables, NodeVariables


@dataclass(frozen=True)
class Inventory:
    """Hosts with their variables as they are meant, untagged; groups name hosts."""

    hosts: Mapping[str, Mapping[str, Any]]
    groups: Mapping[str, tuple[str, ...]]

    def as_script(self) -> dict[str, Any]:
        """What an executable inventory prints for ``--list``."""
        hostvars = {name: unsafe_values(variables) for name, variables in self.hosts.items()}
        groups = {name: {"hosts": list(hosts)} for name, hosts in self.groups.items()}
        return {"_meta": {"hostvars": hostvars}, **groups}

    def as_file(self) -> dict[str, Any]:
        """What a static inventory file holds."""
        hosts = {name: unsafe_values(variables) for name, variables in self.hosts.items()}
        groups = {name: {"hosts": dict.fromkeys(members)} for name, members in self.groups.items()}
        return {"all": {"hosts": hosts, "children": groups}}


def unsafe(value: Any) -> Any:
    """``value`` with every string in it tagged, so that Ansible never evaluates it."""
    if isinstance(value, str):
        return {"__ansible_unsafe": value}
    if isinstance(value, Mapping):
        return {key: unsafe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [unsafe(item) for item in value]
    return value


def unsafe_values(variables: Mapping[str, Any]) -> dict[str, Any]:
    """The variables, each value tagged."""
    return {name: unsafe(value) for name, value in variables.items()}


def inventory_of(
    fleet: Fleet,
    *,
    key_file: Path | None,
    artifacts: Mapping[str, Any],
    node_id: UUID | None = None,
    environment_id: UUID | None = None,
    decommissioned: bool = False,
    instead: EnvironmentVariables | NodeVariables | None = None,
) -> Inventory:
    """All nodes of ``fleet`` that are in use, or one of them; all its environments, or one of them.

    ``decommissioned``: nodes that are not in use any more, too.

    ``instead``: what a node or environment is told, where that is not all that its document declares.

    What is stalled is left out: what it should be is not known.
    """
    nodes = [
        node
        for node in fleet.nodes.values()
        if _usable(node, decommissioned=decommissioned) and node_id in (None, node.id)
    ]
    hosts: dict[str, dict[str, Any]] = {}
    groups = {"nodes": tuple(sorted(node.slug for node in nodes))}
    for node in sorted(nodes, key=lambda node: node.slug):
        environments = [
            environment
            for environment in fleet.environments_by_node.get(node.slug, ())
            if not environment.stalled and environment_id in (None, environment.id)
        ]
        hosts[node.slug] = _host(fleet, node, environments, key_file, artifacts, instead)
        for group in sorted({group_of(environment.key) for environment in environments}):
            groups[group] = (*groups.get(group, ()), node.slug)
    return Inventory(hosts, groups)


def group_of(key: str) -> str:
    """The group of the host that ``site/environment`` is on: ``environment_my_site__production``.

    ``a--b/c`` and ``a/b--c`` share a group, so a play looks its environment up in ``trueup_environments`` too.
    """
    site, _, slug = key.partition("/")
    return f"environment_{site.replace('-', '_')}__{slug.replace('-', '_')}"


def ssh_arguments(node: NodeEntry, key_file: Path | None) -> str:
    """ssh options that accept the pinned host key and no other, whatever this host's own ssh files say.

    With a ``key_file`` it is the only key that is offered; without, the operator's own keys and agent are.
    """
    known = f"/bin/echo {node.slug} {node.manifest.spec.ssh.host_key}"
    options = {
        "HostKeyAlias": node.slug,
        "KnownHostsCommand": known,
        "UserKnownHostsFile": "/dev/null",
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "IdentitiesOnly": "yes" if key_file else "no",
        "BatchMode": "yes",
    }
    return shlex.join(["-F", "none", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))])


def _host(
    fleet: Fleet,
    node: NodeEntry,
    environments: Iterable[EnvironmentEntry],
    key_file: Path | None,
    artifacts: Mapping[str, Any],
    instead: EnvironmentVariables | NodeVariables | None,
) -> dict[str, Any]:
    def told(declared: EnvironmentVariables | NodeVariables) -> dict[str, Any]:
        chosen = instead if type(instead) is type(declared) and instead.id == declared.id else declared
        return chosen.model_dump(mode="json", exclude={"job"})

    spec = node.manifest.spec
    return {
        "ansible_host": spec.address,
        "ansible_port": spec.ssh.port,
        "ansible_user": spec.ssh.user,
        **({"ansible_ssh_private_key_file": str(key_file)} if key_file else {}),
        "ansible_ssh_common_args": ssh_arguments(node, key_file),
        "trueup_node": told(fleet.node_variables(node.id)),
        "trueup_environments": {
            environment.key: told(fleet.environment_variables(environment.id)) for environment in environments
        },
        "trueup_artifacts": dict(artifacts),
    }


def _usable(node: NodeEntry, *, decommissioned: bool) -> bool:
    return not node.stalled and (decommissioned or node.manifest.spec.state == "active")
