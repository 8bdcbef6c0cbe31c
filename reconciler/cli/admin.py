"""``trueup admin``: who may log in."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from reconciler.cli.context import actor, opened
from reconciler.cli.output import Format, Output, say, show
from reconciler.core.errors import Invalid
from reconciler.home import clock

app = typer.Typer(help="The admin of the API.", no_args_is_help=True)
tokens = typer.Typer(help="Bearer tokens for scripts and CI.", no_args_is_help=True)
app.add_typer(tokens, name="token")
Name = Annotated[str, typer.Argument(help="The token's name, as the audit log and commits have it.")]
_SPAN = re.compile(r"([1-9][0-9]{0,4})([hd])")


@app.command("set-password")
def set_password(email: Annotated[str, typer.Option(help="The e-mail address to log in with.")]) -> None:
    """Set the admin's password and end all of their sessions; read from standard input, or asked for."""
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", email):
        raise Invalid(f"{email!r} is no e-mail address. Give one such as admin@example.com.")
    if sys.stdin.isatty():
        password = typer.prompt("Password (12 characters or more)", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    with opened() as home:
        home.records.admins.set_password(email, password, clock())
    say(f"{email} can log in.")


@tokens.command("create")
def create_token(
    name: Name,
    expires: Annotated[str | None, typer.Option(help="12h, 90d, or a date such as 2027-01-31; else never.")] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="It may only GET.")] = False,
) -> None:
    """Make a token and show it, this once."""
    now = clock()
    until = _moment(expires, now) if expires else None
    with opened() as home:
        token = home.records.tokens.create(name, actor().email, now, expires_at=until, read_only=read_only)
    say(token)
    say("It is not shown again. Send it as Authorization: Bearer.", err=True)


@tokens.command("list")
def list_tokens(output: Output = Format.TABLE) -> None:
    """Every token there is or was; not the tokens themselves."""
    with opened() as home:
        rows = [asdict(token) for token in home.records.tokens.all()]
    columns = ("name", "prefix", "read_only", "created_by", "expires_at", "last_used_at", "revoked_at")
    show(rows, columns, output)


@tokens.command("revoke")
def revoke_token(name: Name) -> None:
    """End a token, at once and for good."""
    with opened() as home:
        home.records.tokens.revoke(name, clock())
    say(f"Token {name} is revoked.")


def _moment(text: str, now: datetime) -> datetime:
    if span := _SPAN.fullmatch(text):
        return now + timedelta(**{"hours" if span[2] == "h" else "days": int(span[1])})
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Invalid(f"--expires {text!r} is no time. Give 12h, 90d, or a date such as 2027-01-31.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
