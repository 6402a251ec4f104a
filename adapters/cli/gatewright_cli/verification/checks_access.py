"""Checks of keys. They apply to gateways that want one; a gateway that answers everybody is told so."""

from http import HTTPStatus
from typing import Final

from gatewright_cli.verification.check import Checks, Need, Probe
from gatewright_cli.verification.client import Answer, Client
from gatewright_cli.verification.outcome import Failed, Skipped, error_of, expect_status

checks = Checks()

_WRONG_KEY: Final = "sk-wrong-key-of-gw-cli-verify"
_TURNED_AWAY: Final = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))


def _expect_turned_away(client: Client, probe: Probe) -> None:
    error_of(client.get("/v1/models"), _TURNED_AWAY, "401")
    error_of(client.post("/v1/chat/completions", probe.chat_body()), _TURNED_AWAY, "401")


def _skip_if_open(probe: Probe) -> None:
    if probe.client.with_key(None).get("/v1/models").status == HTTPStatus.OK:
        raise Skipped("the gateway answers without a key")


def expect_absent(secret: str, answer: Answer) -> None:
    """Go on only if an answer does not hold a secret.

    Raises:
        Failed: It does; the message does not.
    """
    places = [name for name, value in answer.headers if secret in value]
    if secret.encode() in answer.body:
        places.append("the body")
    if places:
        raise Failed("the key nowhere in an answer", f"it in {', '.join(places)}")


@checks.check("no-key", "without a key, nothing is answered", Need.KEY)
def _no_key(probe: Probe) -> None:
    _skip_if_open(probe)
    _expect_turned_away(probe.client.with_key(None), probe)


@checks.check("wrong-key", "with a wrong key, nothing is answered", Need.KEY)
def _wrong_key(probe: Probe) -> None:
    _skip_if_open(probe)
    for key in (_WRONG_KEY, f"{probe.client.key}x", str(probe.client.key)[:-1]):
        _expect_turned_away(probe.client.with_key(key), probe)


@checks.check("key-scheme", "the key counts as a Bearer token only", Need.KEY)
def _scheme(probe: Probe) -> None:
    _skip_if_open(probe)
    client = probe.client.with_key(None)
    answer = client.get("/v1/models", authorization=f"Basic {probe.client.key}")
    error_of(answer, _TURNED_AWAY, "401")
    answer = client.get("/v1/models", authorization=f"bearer {probe.client.key}")
    expect_status(answer, (HTTPStatus.OK,), "200 for a scheme in lower case")


@checks.check("key-hidden", "no answer repeats the key", Need.KEY)
def _hidden(probe: Probe) -> None:
    client, key = probe.client, str(probe.client.key)
    expect_absent(key, client.get("/v1/models"))
    expect_absent(key, client.get("/no/such/path"))
    expect_absent(key, client.post("/v1/chat/completions", b"{nonsense"))
    if probe.model:
        expect_absent(key, probe.chat())
    expect_absent(_WRONG_KEY, client.with_key(_WRONG_KEY).get("/v1/models"))
