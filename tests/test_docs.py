"""What the documentation says is there, is there; and what is there, is documented."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from reconciler import __version__
from reconciler.cli import app
from reconciler.core.changes import Cause
from reconciler.core.policy import ReconcileMode
from reconciler.settings import Settings

TOP = Path(__file__).parents[1]
PAGES = sorted([*(TOP / "docs").glob("*.md"), TOP / "README.md", TOP / "CONTRIBUTING.md", TOP / "CHANGELOG.md"])
OPERATING = (TOP / "docs" / "operating.md").read_text()
DRIFT = (TOP / "docs" / "drift.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def table(text: str, heading: str) -> list[list[str]]:
    """The cells of the rows of the first table under a heading, without its two head rows."""
    section = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def _shown(default: object) -> str:
    if default is None:
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_every_setting_is_documented_as_it_is_and_no_other() -> None:
    documented = {name.strip("`"): (default, meaning) for name, default, meaning in table(OPERATING, "Settings")}
    assert documented == {
        f"TRUEUP_{name.upper()}": (_shown(field.default), field.description)
        for name, field in Settings.model_fields.items()
    }


def test_every_setting_that_a_page_names_is_one() -> None:
    named = {name for page in PAGES for name in re.findall(r"\bTRUEUP_[A-Z_]+\b", page.read_text())}
    known = {f"TRUEUP_{name.upper()}" for name in Settings.model_fields}
    # Those of the inventory script, of Ansible's callback and of the tests aren't settings of the control plane.
    others = [TOP / "reconciler" / "inventory_script.py", *(TOP / "tests" / "lab").glob("*.py")]
    others += (TOP / "playbooks" / "callback_plugins").glob("*.py")
    assert named <= known.union(*(re.findall(r"\bTRUEUP_[A-Z_]+\b", file.read_text()) for file in others))


def test_every_cause_and_mode_is_documented() -> None:
    assert [cause for cause, _ in table(DRIFT, "Causes")] == [cause.value for cause in Cause]
    modes = [re.findall(r"`(\w+)`", row[0])[0] for row in table(DRIFT, "Modes")]
    assert modes == [mode.value for mode in ReconcileMode]


def commands() -> Iterator[tuple[str, str]]:
    """Each command line of ``trueup`` that a page shows, with the page's name."""
    for page in PAGES:
        for block in blocks(page.read_text(), "console"):
            for line in block.splitlines():
                if match := re.match(r"[#$] (?:[A-Z_]+=\S+ )*trueup\b(.*)", line):
                    yield page.name, match.group(1).strip()
        for code in re.findall(r"`trueup ([^`]*)`", page.read_text()):
            yield page.name, code.strip()


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_every_command_that_a_page_shows_exists(page: str, line: str) -> None:
    command = typer.main.get_command(app)
    words = line.split()
    while words and (known := getattr(command, "commands", None)):
        if words[0].startswith("-"):
            break
        # A command's name may be of two words.
        length = 2 if " ".join(words[:2]) in known else 1
        name, words = " ".join(words[:length]), words[length:]
        assert name in known, f"{page}: trueup {line}"
        command = known[name]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            assert word.partition("=")[0] in options | {"--help"}, f"{page}: trueup {line}"


def test_pages_show_commands() -> None:
    assert {"status", "init", "apply shop/production"} <= {line for _, line in commands()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:|#", target):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_changelog_has_this_version_first() -> None:
    heading = re.findall(r"^## (.+)$", (TOP / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert heading.partition(" ")[0] in {__version__, "Unreleased"}


def test_the_unit_file_is_one_that_systemd_takes(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    program = tmp_path / "trueup"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / "trueup.service"
    (text,) = (block for block in blocks(OPERATING, "ini") if "[Service]" in block)
    unit.write_text(text.replace("/usr/local/lib/trueup/bin/trueup", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", unit], check=False, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "trueup.service" in line]
    assert (done.returncode, complaints) == (0, [])


@pytest.mark.parametrize("script", blocks(OPERATING, "sh"))
def test_every_script_is_one_that_the_shell_takes(script: str) -> None:
    done = subprocess.run(["sh", "-n"], input=script, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
