"""``trueup domain``: the hostnames of an environment, with their certificates."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reconciler.cli.context import actor, environment_named, opened, refusing
from reconciler.cli.jobs import finish
from reconciler.cli.output import Format, Output, show
from reconciler.core.entries import EnvironmentEntry
from reconciler.core.errors import NotFound
from reconciler.core.fleet import Fleet
from reconciler.home import Home, clock
from reconciler.operations.domains import domains_of

app = typer.Typer(help="Hostnames of environments, with their certificates.", no_args_is_help=True)
Key = Annotated[str, typer.Argument(help="The environment, as SITE/ENVIRONMENT.")]
Hostname = Annotated[str, typer.Argument(help="The name, such as shop.example.com.")]
Wait = Annotated[bool, typer.Option(help="Wait until it is done.")]


@app.command("list")
def list_domains(
    environment: Annotated[str | None, typer.Argument(help="SITE/ENVIRONMENT; left out: all.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Every domain: what its certificate is, until when it lasts, and why there is none."""
    with opened() as home:
        fleet = home.state.fleet()
        chosen = [environment_named(fleet, environment)] if environment else list(fleet.environments.values())
        found = [row for one in sorted(chosen, key=lambda one: one.key) for row in rows(home, one)]
    show(found, ("environment", "hostname", "primary", "tls", "issuer", "ends_at", "trouble"), output)


def rows(home: Home, environment: EnvironmentEntry) -> list[dict[str, Any]]:
    """One row a domain, the primary one first."""
    names = [domain.hostname for domain in environment.manifest.spec.domains]
    found = domains_of(home.state.current(), environment, clock()) if names else []
    return [
        {
            "id": domain.id,
            "environment": environment.key,
            "hostname": domain.hostname,
            "primary": domain.hostname == names[0],
            "tls": domain.tls_status.value,
            "issuer": domain.tls_issuer,
            "ends_at": domain.ends_at.isoformat(timespec="minutes") if domain.ends_at else None,
            "trouble": domain.trouble,
        }
        for domain in sorted(found, key=lambda domain: names.index(domain.hostname))
    ]


def troubled(home: Home, environment: EnvironmentEntry) -> list[dict[str, Any]]:
    """The domains that a person should look at: no certificate, or one that ends soon."""
    found = domains_of(home.state.current(), environment, clock()) if environment.manifest.spec.domains else []
    return [
        {"environment": environment.key, "hostname": one.hostname, "trouble": one.trouble}
        for one in found
        if one.trouble
    ]


@app.command()
def add(environment: Key, hostname: Hostname, wait: Wait = True) -> None:
    """Serve an environment at a hostname, with a certificate. Again: try again to get one."""
    with opened() as home:
        target = environment_named(home.state.fleet(), environment)
        with refusing():
            job_id = home.operations.add_domain(target.id, hostname, actor())
        finish(home, job_id, wait=wait)


@app.command()
def remove(hostname: Hostname, wait: Wait = True) -> None:
    """Serve a hostname no more. Without its primary domain an environment moves to the next one, or its preview URL."""
    with opened() as home:
        finish(home, home.operations.remove_domain(_id_of(home.state.fleet(), hostname), actor()), wait=wait)


def _id_of(fleet: Fleet, hostname: str) -> Any:
    found = next((id_ for id_, (_, domain) in fleet.domains.items() if domain.hostname == hostname), None)
    if found is None:
        raise NotFound(f"No environment has the domain {hostname}. `trueup domain list` shows them.")
    return found
