"""What of a drill's end is the backup's fault, and what is the node's, of which the backup is none the worse."""

import socket
from importlib import import_module
from pathlib import Path

import pytest

from tests.playbooks.node_modules import load

drill = load("release.drill")
module = import_module("ansible_collections.trueup.wordpress.plugins.modules.drill")
Answer = load("fastcgi").Answer
PAGE = b"Status: 500\r\nContent-Type: text/html\r\n\r\n<html>%s</html>"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("ERROR 1064 (42000) at line 7: You have an error in your SQL syntax", "DRILL_FAILED"),
        ("ERROR 1146 (42S02): Table 'wp_1.wp_1040' doesn't exist", "DRILL_FAILED"),
        ("tar: Unexpected EOF in archive", "DRILL_FAILED"),
        *(
            (f"The database was not loaded (exit status [1]): ERROR {number} (HY000) at line 3: …", "DRILL_UNDECIDED")
            for number in (1030, 1040, 1053, 1203, 1226, 1927, 2002, 2006, 2013)
        ),
        ("MariaDB refused (error 2013): Lost connection to server during query", "DRILL_UNDECIDED"),
        ("tar: wp-content/a: Cannot open: Input/output error", "DRILL_UNDECIDED"),
        ("ERROR 1114 (HY000) at line 3: The table 'wp_posts' is full", "DRILL_NO_ROOM"),
        ("MariaDB refused (error 1021): Disk full (/tmp/x); waiting for someone to free some space", "DRILL_NO_ROOM"),
        ('ERROR 1030 (HY000): Got error 28 "No space left on device" from storage engine InnoDB', "DRILL_NO_ROOM"),
        ("tar: wp-content/a: Cannot write: No space left on device", "DRILL_NO_ROOM"),
    ],
)
def test_words(said: str, code: str) -> None:
    assert drill._ended("It was not loaded.", said, [1]).facts == {"trueup_code": code}


@pytest.mark.parametrize(
    ("tar", "status", "code"),
    [
        (2, [2, -13], "DRILL_FAILED"),
        (1, [1, 0], "DRILL_FAILED"),
        (0, [0, 36], "DRILL_FAILED"),
        (137, [137, -13], "DRILL_UNDECIDED"),
        (226, [226, -13], "DRILL_UNDECIDED"),
        (2, [2, -9], "DRILL_UNDECIDED"),
        (0, [-15], "DRILL_UNDECIDED"),
    ],
)
def test_exit_statuses(tar: int, status: list[int], code: str) -> None:
    assert drill._ended("It was not unpacked.", "", status, tar).facts == {"trueup_code": code}


@pytest.mark.parametrize(
    ("body", "errors", "code"),
    [
        (b"", b"PHP Fatal error:  Uncaught Error: Call to undefined function not_there() in zz.php:1", "DRILL_FAILED"),
        (b"<a href='/x/(42000/1203)'>MySQL server has gone away</a>", b"", "DRILL_FAILED"),
        (b"<h1>Error establishing a database connection</h1>", b"", "DRILL_UNDECIDED"),
        (b"", b"PHP Warning: mysqli_real_connect(): (HY000/2002): No such file or directory", "DRILL_UNDECIDED"),
        (b"", b"PHP Fatal error:  Uncaught mysqli_sql_exception: MySQL server has gone away in x", "DRILL_UNDECIDED"),
        (b"", b"WordPress database error Got error 28 'No space left on device' for query", "DRILL_NO_ROOM"),
    ],
)
def test_pages(body: bytes, errors: bytes, code: str) -> None:
    found = drill.judged_page("/ on example.com answers 500", Answer(PAGE % body, errors))
    assert found.facts == {"trueup_code": code}


@pytest.mark.parametrize("listens", [True, False])
def test_a_php_that_does_not_answer_says_nothing_of_the_backup(tmp_path: Path, listens: bool) -> None:
    path = str(tmp_path / "fpm.sock")
    with socket.socket(socket.AF_UNIX) as ear:
        if listens:
            ear.bind(path)
            ear.listen()
        with pytest.raises(drill.Failure, match="nothing is known of the backup") as failed:
            drill.asked(path, "root", str(tmp_path), "https://example.com", "/", 0.2)
    assert failed.value.facts == {"trueup_code": "DRILL_UNDECIDED"}


def test_by_hand_without_a_backup_it_says_what_to_give() -> None:
    run = load("environment.run").Beside(False, "/none", None)
    params = {"variables": {"id": "0a1b2c3d-4e5f-4000-8000-000000000000"}, "backup": None, "clear": False}
    with pytest.raises(drill.Failure, match="give trueup_backup, or trueup_clear=true"):
        module.drill(run, params, None)
