"""Where a copy comes from: on the same node, or streamed from another one through this host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from reconciler.core.actions import CloneEnvironment
from reconciler.core.entries import EnvironmentEntry, NodeEntry
from reconciler.core.errors import JobError, NodeUnreachable
from reconciler.core.fleet import Fleet
from reconciler.core.jobs import JobErrorCode
from reconciler.loop.tools import Inputs, Run, Tools
from reconciler.nodes.connection import PipeBroken

_UNREADABLE = 65
"""Exit status where somebody else made a routine, whose text the site's own user may not see."""
# The site's own database user reads its database: what a view or a function in there does has no more rights than it.
_DUMP = (
    "set -o pipefail; export MYSQL_PWD=$(sed -n \"s/^define( 'DB_PASSWORD', '\\([A-Za-z0-9_-]*\\)' );$/\\1/p\" "
    '"$1/shared/wp-config.php"); hidden=$(mariadb --no-defaults --user="$2" -BN -e "SELECT COUNT(*) FROM '
    'information_schema.routines WHERE routine_schema = DATABASE() AND routine_definition IS NULL" "$2") || exit; '
    '[ "$hidden" = 0 ] || exit 65; '
    'mariadb-dump --no-defaults --user="$2" --single-transaction --quick --hex-blob '
    "--default-character-set=utf8mb4 --no-tablespaces --skip-comments --skip-dump-date --max-allowed-packet=1G "
    "--routines --events "
    '"--ignore-table=$2.trueup_content" "$2" | zstd -q -3'
)
_HIDDEN = (
    "The database of {} has a procedure or function that somebody else than its own user made, which cannot go to "
    "another node. Nothing was changed. Make it anew as the site's own database user, and try again."
)
_UPLOADS = 'tar --create --zstd --directory "$1/shared/uploads" .'
_CONTENT = 'tar --create --zstd --exclude=./uploads --exclude=./cache --directory "$1/current/wp-content" .'
_KEEP = 'umask 077; mkdir -p "$1" && cat > "$1/$2.part" && mv "$1/$2.part" "$1/$2"'


@contextmanager
def source_of_copy(action: CloneEnvironment, tools: Tools, fleet: Fleet, run: Run) -> Iterator[Inputs]:
    """What ``clone.yml`` is given. From another node, code and content are on the target when this yields.

    Raises:
        JobError: the source is gone, or its node does not answer.
    """
    content = action.variables.content
    source = fleet.environments.get(UUID(content.source_environment)) if content.source_environment else None
    node = fleet.node_of(source) if source else None
    if source is None or node is None:
        raise JobError(JobErrorCode.TARGET_MISSING, "The environment to copy is no longer declared. Nothing was done.")
    given = {"id": str(source.id), "urls": addresses(source, fleet)}
    if node.id == action.node_id:
        yield Inputs({"trueup_source": given})
        return
    bundle = f"/var/tmp/trueup-{action.environment_id}"  # noqa: S108 (on the node, root's, 0700)
    target = fleet.node(action.node_id)
    try:
        _stream(source, node, target, bundle, tools, run)
        yield Inputs({"trueup_source": {**given, "bundle": bundle}})
    finally:
        with suppress(NodeUnreachable):
            tools.connections.run(tools.target(target), ["rm", "-rf", bundle])


def addresses(environment: EnvironmentEntry, fleet: Fleet) -> list[str]:
    """Every address that its content may name it by."""
    names = [domain.hostname for domain in environment.manifest.spec.domains]
    return [fleet.preview_url(environment), *(f"https://{name}" for name in names)]


def _stream(source: EnvironmentEntry, node: NodeEntry, target: NodeEntry, bundle: str, tools: Tools, run: Run) -> None:
    site = f"/var/www/sites/{source.id}"
    parts = {
        "database.sql.zst": _DUMP,
        "uploads.tar.zst": _UPLOADS,
        "content.tar.zst": _CONTENT,
    }
    for name, script in parts.items():
        command = ["bash", "-c", script, "bash", site, f"wp_{source.id.hex[:12]}"]
        keep = ["bash", "-c", _KEEP, "bash", bundle, name]
        try:
            tools.connections.pipe(
                tools.target(node), command, tools.target(target), keep, timeout_s=run.timeout_s, cancel=run.cancel
            )
        except NodeUnreachable as error:
            if isinstance(error, PipeBroken) and error.status == _UNREADABLE:
                raise JobError(JobErrorCode.CONTENT_UNMOVABLE, _HIDDEN.format(source.key)) from error
            raise JobError(JobErrorCode.ANSIBLE_HOST_UNREACHABLE, error.message) from error
