"""``trueup node``: declare hosts, see them, bring them to the baseline."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from reconciler.cli.context import actor, node_named, opened
from reconciler.cli.jobs import finish
from reconciler.cli.output import Format, Output, ask, say, show
from reconciler.core.errors import Invalid
from reconciler.home import Home

app = typer.Typer(help="Hosts.", no_args_is_help=True)


@app.command("list")
def list_nodes(output: Output = Format.TABLE) -> None:
    """Every node with its status and what was last observed."""
    with opened() as home:
        show(rows(home), ("name", "address", "status", "os", "environments", "observed_at"), output)


def rows(home: Home) -> list[dict[str, Any]]:
    current = home.state.current()
    found = []
    for node in sorted(current.fleet.nodes.values(), key=lambda node: node.slug):
        observation = current.observations.get(node.id)
        seen = observation.observed if observation else None
        found.append(
            {
                "id": node.id,
                "name": node.slug,
                "address": node.manifest.spec.address,
                "status": current.node_status(node.id).value,
                "os": f"{seen.os_id} {seen.os_version}" if seen else None,
                "environments": len(current.fleet.environments_by_node.get(node.slug, ())),
                "observed_at": observation.checked_at.isoformat(timespec="seconds") if observation else None,
                "unreachable": observation.unreachable.reason if observation and observation.unreachable else None,
                "hold": seen.hold if seen else None,
                "unusable": dict(seen.unusable) if seen else {},
            }
        )
    return found


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The node's name: a slug.")],
    address: Annotated[str, typer.Option(help="Its public IP address.")],
    port: Annotated[int, typer.Option(help="Its ssh port.")] = 22,
    user: Annotated[str, typer.Option(help="The user to log in as; needs root's rights.")] = "root",
    fingerprint: Annotated[
        str | None, typer.Option(help="The host key's SHA256 fingerprint, as you know it; asked for otherwise.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until the node is provisioned.")] = False,
) -> None:
    """Declare a host with its pinned ssh host key, and provision it.

    Put the key that `trueup init` showed into the host's authorized_keys first.
    """
    from reconciler.nodes.target import scan_host_key

    with opened() as home:
        host_key = scan_host_key(address, port)
        if fingerprint is None:
            say(f"The host at {address} shows the key {host_key.fingerprint}")
            say("Compare it with `ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub` on the host's own console.")
            ask("Is it the same?")
        elif fingerprint != host_key.fingerprint:
            raise Invalid(
                f"The host at {address} shows {host_key.fingerprint}, not {fingerprint}. Another machine may be "
                "answering in its place: find out before you go on."
            )
        job_id = home.operations.add_node(name, address, port, user, host_key.key, actor())
        finish(home, job_id, wait=wait)


@app.command()
def provision(
    name: Annotated[str, typer.Argument(help="The node's name.")],
    wait: Annotated[bool, typer.Option(help="Wait for the end.")] = True,
) -> None:
    """Bring a node to the baseline."""
    with opened() as home:
        finish(home, home.operations.provision(node_named(home.state.fleet(), name).id, actor()), wait=wait)
