"""Whatever a site, a node or a document named: at a terminal it is text, and what a terminal would obey is shown."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import structlog
from ruamel.yaml import YAML
from typer.testing import CliRunner

import reconciler.cli
from reconciler.cli import app, output
from reconciler.core.errors import TrueupError
from reconciler.core.jobs import JobType
from reconciler.core.observed import FileDifference, ObservedHealth, ObservedNode
from reconciler.core.visible import visible, visible_json, visible_lines
from reconciler.home import Home, clock
from reconciler.records.drift import DriftCheck
from reconciler.records.jobs import NewJob
from reconciler.records.outcomes import Failed
from reconciler.records.queue import Queue
from reconciler.settings import Settings
from tests.controlplane import control_plane, fresh_home, node_document, site_documents
from tests.core.fake_node import configured, provisioned

__all__ = ["control_plane", "fresh_home"]

EVIL = "a\x1b]0;pwned\x07\x1b[2J\r\x9b31m\u202egnp.exe\u2066\u200b\nstatus: all is well"
"""A window's title, an empty screen, a line that is overwritten, colours, text turned round, a line of its own."""
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def test_what_a_terminal_would_obey_is_written_out() -> None:
    assert visible(EVIL) == (r"a\x1b]0;pwned\x07\x1b[2J\r\x9b31m\u202egnp.exe\u2066\u200b\nstatus: all is well")
    assert visible_lines("a\n\tb\x1b") == "a\n\tb\\x1b"
    assert json.loads(visible_json(json.dumps({"x": EVIL}, ensure_ascii=False))) == {"x": EVIL}
    assert json.loads(visible_json(json.dumps("\U000e0041", ensure_ascii=False))) == "\U000e0041"
    for ordinary in ("Ünïcode 北京 🦊", "a b", "„Gruß“ – …", "\u0645\u0631\u062d\u0628\u0627"):
        assert visible(ordinary) == ordinary


@pytest.mark.parametrize("code", [*range(0x20), 0x7F, *range(0x80, 0xA0), 0xAD, 0x061C, *range(0x200B, 0x2010)])
def test_each_control_character_is(code: int) -> None:
    assert not OBEYED.search(visible(chr(code)))
    assert visible(chr(code)).isascii()


@contextmanager
def planted(home_directory: Path) -> Iterator[Home]:
    """The home, with such text wherever a site, a node or somebody else may have put it."""
    with Home.open(Settings(home=home_directory)) as home:
        fleet, now = home.state.fleet(), clock()
        node, environment = fleet.nodes_by_slug["web-1"], fleet.environments_by_key["acme/production"]
        variables = fleet.environment_variables(environment.id)
        there = configured(variables)
        assert there.applied
        applied = there.applied.model_copy(
            update={"files": {f"/etc/{EVIL}": "0" * 64}, "variables": {**there.applied.variables, "url": EVIL}}
        )
        there = there.model_copy(
            update={
                "applied": applied,
                "links": {f"/var/{EVIL}": EVIL},
                "wordpress_version": EVIL,
                "differences": (FileDifference(path=f"wp-content/{EVIL}", kind="unknown", area="release"),),
            }
        )
        seen = provisioned(fleet.node_variables(node.id)).model_copy(
            update={
                "hold": EVIL,
                "hostname": EVIL,
                "os_id": EVIL,
                "environments": {variables.id: there, str(uuid4()): there},
                "unusable": {EVIL[:50]: EVIL},
            }
        )
        home.records.observations.save(node.id, ObservedNode.model_validate(seen.model_dump()), now)
        release = fleet.release_id(environment)
        health = ObservedHealth(release=str(release), health="unhealthy", reason=EVIL, checks={"page": EVIL})
        home.records.health.save(environment.id, release, health, now, alone=True)
        change = {
            "field": f"release wp-content/{EVIL}",
            "desired": EVIL,
            "observed": EVIL,
            "cause": EVIL,
            "heals": False,
        }
        named = {"field": f"content wp_{EVIL}", "content": EVIL, "cause": EVIL, "desired": None, "observed": None}
        found = ({**change, "held": None}, {**named, "heals": False})
        check = DriftCheck(
            id=uuid4(), environment_id=environment.id, status="drifted", differences=found, created_at=now
        )
        home.records.drift_checks.save(check)
        _failed_job(home, environment.id)
        yield home


def _failed_job(home: Home, environment_id: Any) -> None:
    job = NewJob(id=uuid4(), job_type=JobType.BACKUP, environment_id=environment_id, intent={"x": EVIL}, max_attempts=1)
    home.records.jobs.enqueue_all([job], clock())
    queue = Queue(home.records.engine, timedelta(seconds=30))
    claimed = queue.claim("test", clock(), frozenset({JobType.BACKUP}))
    assert claimed
    queue.finish(claimed.job.id, claimed.fence, Failed("BACKUP_FAILED", f"web-1: {EVIL}"), clock())


@pytest.fixture(scope="module")
def home(fresh_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    from tests.controlplane import make_home

    directory = tmp_path_factory.mktemp("terminal") / "home"
    make_home(fresh_home, directory, {"nodes/web-1.yaml": node_document(), **site_documents("acme")})
    with planted(directory) as home:
        yield home


COMMANDS = {
    "plan --no-observe": True,
    "plan --no-observe -o markdown": True,
    "plan --no-observe -o json": True,
    "status": True,
    "status -o json": True,
    "status -o yaml": True,
    "drift": False,
    "drift acme/production": True,
    "drift -o json": True,
    "drift -o yaml": True,
    "drift report": True,
    "drift report --format markdown": True,
    "drift report --format json": False,
    "drift report --format html": False,
    "node list": False,
    "node list -o json": True,
    "node list -o yaml": True,
    "site list": False,
    "domain list": False,
    "job list": False,
    "job list -o json": True,
    "job list -o yaml": True,
    "job show JOB": True,
    "job show JOB -o json": True,
    "job events JOB": False,
    "job events JOB -o json": False,
    "job follow JOB": True,
    "history acme/production": False,
    "history acme/production -o json": False,
    "backup list acme/production": False,
    "snapshot": False,
    "admin token list": False,
    "upstream status": False,
    "secret list": False,
    "apply acme/production": False,
    "health nobody/production": False,
    f"job show {EVIL.split(maxsplit=1)[0]}": False,
}
"""Each command that tells what is known, and whether it tells of what was planted."""


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_passes_on_what_a_terminal_obeys(command: str, home: Home) -> None:
    job = str(next(iter(home.records.jobs.page(_all(), 1).jobs)).id)
    arguments = [job if word == "JOB" else word for word in command.split(" ")]
    environment = {"TRUEUP_HOME": str(home.settings.home), "NO_COLOR": "1"}
    result = CliRunner().invoke(app, arguments, env=environment)
    told = result.output
    assert isinstance(result.exception, (TrueupError, SystemExit, type(None))), result.exception
    told += result.exception.message if isinstance(result.exception, TrueupError) else ""
    assert not OBEYED.search(told), repr(OBEYED.search(told))
    if COMMANDS[command]:
        assert "pwned" in told, "what was planted is told, and shown"
    if command.endswith("json") and result.exit_code == 0:
        assert json.loads(result.stdout) is not None
    if command.endswith("yaml"):
        assert YAML(typ="safe").load(result.stdout) is not None
    if not command.endswith(("json", "yaml", "html")):
        assert not re.search(r"^(?:- |\| )?status: all is well", told, re.MULTILINE), "nobody makes up a line of ours"


def _all() -> Any:
    from reconciler.records.jobs import JobFilter

    return JobFilter(job_types=frozenset({JobType.BACKUP}))


def test_json_and_yaml_say_what_there_is(home: Home) -> None:
    environment = {"TRUEUP_HOME": str(home.settings.home)}
    for shape, load in (("json", json.loads), ("yaml", YAML(typ="safe").load)):
        told = CliRunner().invoke(app, ["node", "list", "-o", shape], env=environment)
        assert load(told.stdout)[0]["hold"] == EVIL


def test_an_error_message_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        output.fail(EVIL)
    assert not OBEYED.search(capsys.readouterr().err.replace("\\n", ""))


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_log_is_text_too(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    from reconciler.cli.control import _log

    before = structlog.get_config()
    try:
        _log(Settings.model_construct(log_format=log_format))
        log = structlog.get_logger()
        log.warning(EVIL, reason=EVIL, number=1)
        try:
            raise ValueError(EVIL)
        except ValueError:
            log.exception("failed", said=EVIL)
    finally:
        structlog.configure(**before)
    told = capsys.readouterr()
    text = re.sub(r"\x1b\[[0-9;]*m", "", told.out + told.err)
    assert "pwned" in text
    assert not OBEYED.search(text), repr(OBEYED.search(text))


def test_a_command_without_a_server_logs_text_too(capsys: pytest.CaptureFixture[str]) -> None:
    before = structlog.get_config()
    try:
        output.log_to_stderr()
        structlog.get_logger().warning(EVIL, reason=EVIL)
    finally:
        structlog.configure(**before)
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().err)
    assert "pwned" in text
    assert not OBEYED.search(text)


PACKAGE = Path(reconciler.cli.__file__).parent
PRINTING = {"echo", "secho", "confirm", "print", "print_json"}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.stem)
def test_nothing_is_printed_but_through_the_functions_that_show_it(path: Path) -> None:
    if path.stem == "output":
        return
    found = [
        f"{path.name}:{node.lineno}"
        for node in ast.walk(ast.parse(path.read_text()))
        if (
            isinstance(node, ast.Attribute)
            and node.attr in PRINTING
            and getattr(node.value, "id", "") in {"typer", "click"}
        )
        or (isinstance(node, ast.Name) and node.id == "print")
        or (isinstance(node, ast.Attribute) and node.attr == "write" and "std" in ast.dump(node.value))
    ]
    assert found == []
