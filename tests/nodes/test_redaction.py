"""What a message may not say, and what it must still say."""

from __future__ import annotations

import pytest

from reconciler.nodes.redaction import redact, tail


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("git clone https://bob:hunter2@example.com/x.git", "git clone https://***@example.com/x.git"),
        ("define( 'DB_PASSWORD', 'hunter2' );", "define( 'DB_PASSWORD', '***' );"),
        ("define('AUTH_KEY', 'hunter2');", "define('AUTH_KEY', '***');"),
        ('{"password": "hunter2", "user": "bob"}', '{"password": "***", "user": "bob"}'),
        ('{\\"password\\": \\"hunter2\\"}', '{\\"password\\": \\"***\\"}'),
        ("--password=hunter2 --user=bob", "--password=*** --user=bob"),
        ("CREATE USER x IDENTIFIED BY 'hunter2'", "CREATE USER x IDENTIFIED BY '***'"),
        ("Authorization: Bearer hunter2", "Authorization: Bearer ***"),
        ("?X-Amz-Signature=hunter2&X-Amz-Date=1", "?X-Amz-Signature=***&X-Amz-Date=1"),
        ("a -----BEGIN OPENSSH PRIVATE KEY-----\nhunter2\n-----END OPENSSH PRIVATE KEY----- b", "a *** b"),
        ("-----BEGIN PRIVATE KEY-----\nhunter2, cut off", "***"),
    ],
)
def test_the_shape_of_a_secret_is_enough(said: str, shown: str) -> None:
    assert redact(said) == shown


@pytest.mark.parametrize(
    "said", ["http://example.com:8080/path", "No password was given", "sha256 0abc528e963f", "tokens are counted"]
)
def test_ordinary_text_stays(said: str) -> None:
    assert redact(said) == said


def test_known_secrets_go_whatever_they_look_like() -> None:
    assert redact("abc abcdef x", ["abc", "abcdef", ""]) == "*** *** x"


def test_the_tail_begins_with_a_line_and_never_breaks_a_character() -> None:
    assert tail("short", 10) == "short"
    assert tail("first line\nsecond\n", 10) == "second\n"
    assert tail("ü" * 20, 5) == "üü"
