"""``trueup init --from``: brings a lost home back, and says what is left to do."""

from __future__ import annotations

import shlex

from reconciler.cli.context import tools_of
from reconciler.cli.output import say
from reconciler.core.errors import TrueupError
from reconciler.core.fleet import Fleet
from reconciler.home import Home
from reconciler.loop.backups import rebuild
from reconciler.recovery import Survivors, recover
from reconciler.settings import Settings
from reconciler.storage.secret_store import Secrets
from reconciler.store.remote import Remote
from reconciler.store.repository import Author


def bring_back(settings: Settings, survivors: Survivors, author: Author) -> None:
    """Make the home, learn the backups from the bucket, and tell."""
    remote = survivors.remote
    recover(settings, survivors, author)
    say(f"Home: {settings.home}")
    # The settings may not name the repository yet, or still another one.
    with Home.open(settings.model_copy(update={"upstream": None, "upstream_path": None})) as home:
        fleet = home.state.fleet()
        say(f"Store: {settings.store}, from {remote} at {fleet.revision}")
        say(f"Documents: {len(fleet.nodes)} nodes, {len(fleet.sites)} sites, {len(fleet.stalled)} stalled")
        say(f"Secrets: {', '.join(Secrets(settings.secrets).names()) or 'none'}")
        say(f"Backups: {_backups(home, fleet)}")
    _tell_what_is_left(settings, remote, fleet, has_old_key=survivors.ssh_key is not None)


def _backups(home: Home, fleet: Fleet) -> str:
    if fleet.platform.spec.backups is None:
        return "platform.yaml names no storage"
    try:
        with tools_of(home) as tools:
            return f"{len(rebuild(tools))} in the bucket"
    except TrueupError as error:
        return f"not listed. {error.message} Then: trueup backup rebuild"


def _tell_what_is_left(settings: Settings, remote: Remote, fleet: Fleet, *, has_old_key: bool) -> None:
    say()
    say("Left to do, in this order:")
    set_already = (settings.upstream, settings.upstream_branch, settings.upstream_path or "")
    if set_already != (remote.url, remote.branch, remote.folder):
        path = f" TRUEUP_UPSTREAM_PATH={remote.folder}" if remote.folder else ""
        say(f"TRUEUP_UPSTREAM={remote.url} TRUEUP_UPSTREAM_BRANCH={remote.branch}{path} in the settings")
    if not has_old_key:
        key = shlex.quote(settings.ssh_key.with_suffix(".pub").read_text().strip())
        for node in fleet.nodes.values():
            spec = node.manifest.spec
            where = f"-p {spec.ssh.port} {spec.ssh.user}@{spec.address}"
            say(f"echo {key} | ssh {where} 'cat >> .ssh/authorized_keys'")
    say("trueup admin set-password --email EMAIL")
    say("trueup plan (what would be changed; nothing, if all that ran was pushed)")
    say("trueup serve")
