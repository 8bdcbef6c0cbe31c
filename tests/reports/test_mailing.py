"""Reports that go by mail: to each recipient by itself, encrypted as declared or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.reports.desk import Desk
from tests.reports.receivers import Post, mail_server
from tests.reports.test_delivering import FIRST

SENDER = "trueup@example.com"


def mails(post: Post, *to: str, **smtp: Any) -> dict[str, Any]:
    server = {"host": "127.0.0.1", "port": post.port, "sender": SENDER, "ca_bundle": post.ca or None, **smtp}
    return {"targets": [{"type": "email", "to": list(to)}], "smtp": server}


def test_mail_to_each_by_starttls_with_a_password(desk: Desk, tmp_path: Path) -> None:
    desk.secrets.put("mail", {"username": "trueup", "password": "pass"})
    with mail_server(tmp_path, password="pass") as post:
        desk.declare(mails(post, "ada@example.com", "bob@example.com", credentials="mail"))
        id_ = desk.ask()
        desk.deliver()
    assert {one.status for one in desk.deliveries(id_).values()} == {"sent"}
    assert sorted(one.recipients for one in post.mails) == [["ada@example.com"], ["bob@example.com"]]
    for mail in post.mails:
        assert (mail.sender, mail.was_encrypted, mail.user) == (SENDER, True, "trueup")
        assert mail.message["Subject"].startswith("Drift report: All clean")
        plain, page = (part.get_content() for part in mail.message.iter_parts())
        assert FIRST in plain
        assert "asked for by ops@example.com" in plain
        assert page.startswith("<!doctype html>")
        assert FIRST in page
    assert len({mail.message["Message-ID"] for mail in post.mails}) == 2


def test_a_wrong_password_is_told_without_it(desk: Desk, tmp_path: Path) -> None:
    desk.secrets.put("mail", {"username": "trueup", "password": "wr0ng"})
    with mail_server(tmp_path, password="pass") as post:
        desk.declare(mails(post, "ada@example.com", credentials="mail"))
        id_ = desk.ask()
        desk.deliver()
    assert post.mails == []
    told = desk.only(id_)
    assert (told.status, "535" in str(told.error), "wr0ng" in str(told.error)) == ("pending", True, False)


def test_one_unknown_recipient_does_not_keep_it_from_the_others(desk: Desk, post: Post) -> None:
    post.refused = {"gone@example.com"}
    desk.declare(mails(post, "gone@example.com", "ada@example.com"))
    id_ = desk.ask()
    desk.deliver()
    told = desk.deliveries(id_)
    assert (told["email ada@example.com"].status, told["email gone@example.com"].status) == ("sent", "pending")
    assert "550 5.1.1 No such user" in str(told["email gone@example.com"].error)


def test_a_mail_server_that_is_busy_and_one_that_hangs_up(desk: Desk, post: Post) -> None:
    desk.declare(mails(post, "ada@example.com"))
    post.answers = ["451 Try again later", "250 Kept"]
    id_ = desk.ask()
    desk.deliver()
    assert (desk.only(id_).status, "451 Try again later" in str(desk.only(id_).error)) == ("pending", True)
    desk.pass_time(minutes=1)
    desk.deliver()
    assert (desk.only(id_).status, len(post.mails)) == ("sent", 1)

    desk.observe(broken="f" * 64)
    post.answers = [None]
    id_ = desk.ask()
    desk.deliver()
    assert desk.only(id_).status == "uncertain"


def test_no_mail_to_a_server_without_a_certificate_that_is_trusted(desk: Desk, post: Post, tmp_path: Path) -> None:
    desk.declare(mails(post, "ada@example.com", ca_bundle=None))
    id_ = desk.ask()
    desk.deliver()
    assert (post.mails, desk.only(id_).status) == ([], "pending")
    assert "certificate verify failed" in str(desk.only(id_).error)

    with mail_server(tmp_path, encrypted=False) as plain:
        desk.declare(mails(plain, "bob@example.com"))
        id_ = desk.ask()
        desk.deliver()
    assert plain.mails == []
    assert "STARTTLS" in str(desk.only(id_).error)


def test_without_encryption_where_that_is_declared(desk: Desk, tmp_path: Path) -> None:
    with mail_server(tmp_path, encrypted=False) as plain:
        desk.declare(mails(plain, "bob@example.com", security="none"))
        desk.ask()
        desk.deliver()
    assert [mail.was_encrypted for mail in plain.mails] == [False]
