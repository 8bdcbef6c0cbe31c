"""``trueup admin``: who may log in."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from reconciler.cli.context import opened
from reconciler.core.errors import Invalid
from reconciler.home import clock

app = typer.Typer(help="The admin of the API.", no_args_is_help=True)


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
    typer.echo(f"{email} can log in.")
