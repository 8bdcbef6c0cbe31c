"""What only all documents together show: ids and addresses that two share, references that lead nowhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from reconciler.core.entries import EnvironmentEntry, NodeEntry, SiteEntry, Stalled
from reconciler.core.manifests import EnvironmentType
from reconciler.core.options import hidden_copy

if TYPE_CHECKING:
    from reconciler.core.fleet import Fleet


def problems_of(entries: list[Any], fleet: Fleet) -> dict[str, Stalled]:
    """The first problem of each document that only the others show."""
    problems: dict[str, Stalled] = {}
    for problem in (
        *_shared_ids(entries),
        *_shared_addresses(entries),
        *_dangling(entries, fleet),
        *_public_copies(entries),
    ):
        problems.setdefault(problem.path, problem)
    later = (_second_productions, _shared_urls, _shared_domains)
    for problem in (one for find in later for one in find(entries, fleet, problems)):
        problems.setdefault(problem.path, problem)
    return problems


def _shared_ids(entries: list[Any]) -> Iterable[Stalled]:
    for same in _groups(entries, lambda entry: entry.id):
        for entry in same:
            other = next(one.path for one in same if one.path != entry.path)
            yield Stalled(
                entry.path,
                entry.place_of(("metadata", "id")),
                f"id {entry.id} is also the id of {other}. Give one of them a new id, or remove it.",
            )


def _shared_addresses(entries: list[Any]) -> Iterable[Stalled]:
    nodes = [entry for entry in entries if isinstance(entry, NodeEntry)]
    for same in _groups(nodes, lambda node: (node.manifest.spec.address, node.manifest.spec.ssh.port)):
        for entry in same:
            other = next(one.path for one in same if one.path != entry.path)
            yield Stalled(
                entry.path,
                entry.place_of(("spec", "address")),
                f"address {entry.manifest.spec.address} is also that of {other}. One host is one node.",
            )


def _dangling(entries: list[Any], fleet: Fleet) -> Iterable[Stalled]:
    nodes = {entry.slug for entry in entries if isinstance(entry, NodeEntry)}
    sites = {entry.slug for entry in entries if isinstance(entry, SiteEntry)}
    for entry in entries:
        if not isinstance(entry, EnvironmentEntry):
            continue
        if entry.site not in sites:
            yield Stalled(
                entry.path,
                None,
                f"Environment {entry.key} belongs to a site that no document defines. "
                f"Add sites/{entry.site}/site.yaml or remove this document.",
            )
        elif entry.manifest.spec.node not in nodes:
            yield Stalled(
                entry.path,
                entry.place_of(("spec", "node")),
                f"Environment {entry.key} names node {entry.manifest.spec.node}, which no document defines. "
                f"Add nodes/{entry.manifest.spec.node}.yaml or correct spec.node.",
            )
        elif (source := entry.manifest.spec.source_environment) and source not in fleet.environments:
            yield Stalled(
                entry.path,
                entry.place_of(("spec", "source_environment")),
                f"Environment {entry.key} names source environment {source}, which no document defines.",
            )


def _public_copies(entries: list[Any]) -> Iterable[Stalled]:
    for entry in entries:
        if not isinstance(entry, EnvironmentEntry):
            continue
        spec = entry.manifest.spec
        if name := hidden_copy(spec.type.value, spec.options):
            yield Stalled(
                entry.path,
                entry.place_of(("spec", "options", name)),
                f"spec.options.{name}: search engines are kept away from a {spec.type} environment. "
                'Remove it, or set it to "0".',
            )


def _second_productions(entries: list[Any], fleet: Fleet, problems: Mapping[str, Stalled]) -> Iterable[Stalled]:
    productions = [
        entry
        for entry in entries
        if isinstance(entry, EnvironmentEntry)
        and entry.path not in problems
        and entry.manifest.spec.type is EnvironmentType.PRODUCTION
    ]
    for same in _groups(productions, lambda entry: entry.site):
        for entry in same:
            other = next(one.path for one in same if one.path != entry.path)
            yield Stalled(
                entry.path,
                entry.place_of(("spec", "type")),
                f"Site {entry.site} has a second production environment in {other}. Keep one; "
                "make the other staging or clone.",
            )


def _shared_urls(entries: list[Any], fleet: Fleet, problems: Mapping[str, Stalled]) -> Iterable[Stalled]:
    environments = [entry for entry in entries if isinstance(entry, EnvironmentEntry) and entry.path not in problems]
    for same in _groups(environments, fleet.preview_url):
        for entry in same:
            other = next(one.path for one in same if one.path != entry.path)
            yield Stalled(
                entry.path,
                entry.place_of(("spec", "preview_url")),
                f"{fleet.preview_url(entry)} is also the preview URL of {other}. Change spec.preview_url.",
            )


def _shared_domains(entries: list[Any], fleet: Fleet, problems: Mapping[str, Stalled]) -> Iterable[Stalled]:
    """Names that two environments have, as their own or as a preview address."""
    environments = [entry for entry in entries if isinstance(entry, EnvironmentEntry) and entry.path not in problems]
    names: list[tuple[EnvironmentEntry, str, int | None]] = [
        (one, fleet.preview_url(one).partition("://")[2], None) for one in environments
    ]
    names += [(one, d.hostname, at) for one in environments for at, d in enumerate(one.manifest.spec.domains)]
    for same in _groups(names, lambda name: name[1]):
        for entry, hostname, at in same:
            other = next((one.path for one, _, place in same if (one.path, place) != (entry.path, at)), entry.path)
            if at is not None:
                yield Stalled(
                    entry.path,
                    entry.place_of(("spec", "domains", at, "hostname")),
                    f"{hostname} is also a name of {other}. A name leads to one environment: remove it from one.",
                )


def _groups(entries: Iterable[Any], key: Callable[[Any], Any]) -> Iterable[list[Any]]:
    """Entries that share a key; nearly always none, so nothing is gathered before one is found."""
    first: dict[Any, Any] = {}
    shared: dict[Any, list[Any]] = {}
    for entry in entries:
        value = key(entry)
        other = first.setdefault(value, entry)
        if other is not entry:
            shared.setdefault(value, [other]).append(entry)
    return shared.values()
