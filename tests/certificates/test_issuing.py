"""What an ACME server answers to a request, without a server."""

from typing import Any

import pytest
import requests
from acme import client, messages

from reconciler.certificates.issuing import TRIES, Network


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the server answers to each sending, in order; then the request is done."""
    answers: list[str] = []

    def post_once(*_: Any, **__: Any) -> requests.Response:
        if answers:
            raise messages.Error.with_code(answers.pop(0))
        return requests.Response()

    monkeypatch.setattr(client.ClientNetwork, "_post_once", post_once)
    return answers


def network() -> Network:
    return Network.__new__(Network)


def test_a_nonce_that_is_refused_again_and_again_is_no_refusal_of_the_request(sent: list[str]) -> None:
    sent += ["badNonce"] * (TRIES - 1)
    assert isinstance(network().post("https://acme.example/order", None), requests.Response)
    assert sent == []


def test_a_server_that_takes_no_nonce_is_told(sent: list[str]) -> None:
    sent += ["badNonce"] * TRIES
    with pytest.raises(messages.Error, match="badNonce"):
        network().post("https://acme.example/order", None)


def test_another_refusal_is_one(sent: list[str]) -> None:
    sent += ["rateLimited", "rateLimited"]
    with pytest.raises(messages.Error, match="rateLimited"):
        network().post("https://acme.example/order", None)
    assert sent == ["rateLimited"]
