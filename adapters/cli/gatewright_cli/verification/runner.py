"""Runs checks against one gateway, one after the other."""

import http.client
import time
from collections.abc import Iterable, Iterator
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from attrs import frozen

from gatewright_cli.verification.check import Check, Need, Probe
from gatewright_cli.verification.checks_models import listed_models
from gatewright_cli.verification.client import Client
from gatewright_cli.verification.outcome import Failed, Skipped

_NO_CHATTERS: Final = ("embed", "rerank", "whisper", "tts", "moderation", "dall-e", "image")
"""Parts of the names of models that do something else."""
_EMBEDDER: Final = "embed"
_TURNED_AWAY: Final = frozenset((HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN))


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@frozen
class Result:
    """What came of a check.

    Attributes:
        check: Which one.
        outcome: How it ended.
        detail: What was expected and what came, or why it was skipped, in one line; "" if it passed.
        seconds: How long it took.
        exchange: The last request and answer of a failed one, for people.
    """

    check: Check
    outcome: Outcome
    detail: str
    seconds: float
    exchange: tuple[str, ...] = ()


@frozen
class Reception:
    """How a gateway receives us.

    Attributes:
        probe: To run checks with.
        refusal: Why checks that need access make no sense; "" if we have it.
    """

    probe: Probe
    refusal: str


def receive(client: Client, model: str | None, embedding_model: str | None) -> Reception:
    """Knock, and choose the models that are not named.

    Args:
        client: Talks to the gateway.
        model: Model that chats; None for the first that is listed and whose name does not speak of something else.
        embedding_model: Model that embeds; None for the first whose name speaks of it.

    Raises:
        OSError: There is nobody.
        http.client.HTTPException: Nobody who speaks HTTP.
    """
    answer = client.get("/v1/models")
    refusal = ""
    if answer.status in _TURNED_AWAY:
        refusal = "the key is refused" if client.key is not None else "a key is needed"
    names: list[str] = []
    if answer.status == HTTPStatus.OK and None in {model, embedding_model}:
        try:
            names = [entry["id"] for entry in listed_models(Probe(client, "", "")) if entry.get("id")]
        except Failed:
            names = []  # the check `models` says what is wrong with the list
    if model is None:
        chatters = (name for name in names if not any(part in str(name).lower() for part in _NO_CHATTERS))
        model = next(chatters, "")
    if embedding_model is None:
        embedding_model = next((name for name in names if _EMBEDDER in str(name).lower()), "")
    return Reception(Probe(client, model, embedding_model), refusal)


def run_checks(checks: Iterable[Check], reception: Reception) -> Iterator[Result]:
    """Run checks, and tell of each as soon as it has ended."""
    for check in checks:
        began_at_s = time.monotonic()
        outcome, detail = _run(check, reception)
        notes = _notes_of(reception.probe.client) if outcome is Outcome.FAILED else ()
        yield Result(check, outcome, detail, time.monotonic() - began_at_s, notes)


def _notes_of(client: Client) -> tuple[str, ...]:
    """The last exchange, without the key: people paste it where others read it."""
    if not client.key:
        return tuple(client.notes)
    return tuple(note.replace(client.key, "[key]") for note in client.notes)


def _run(check: Check, reception: Reception) -> tuple[Outcome, str]:
    missing = _missing(check, reception)
    if missing:
        return Outcome.SKIPPED, missing
    probe = reception.probe
    probe.client.notes.clear()
    try:
        check.run(probe)
    except Skipped as reason:
        return Outcome.SKIPPED, str(reason)
    except Failed as reason:
        return Outcome.FAILED, str(reason)
    except TimeoutError:
        return Outcome.FAILED, f"expected an answer within {probe.client.timeout_s:g} s, got none"
    except (OSError, http.client.HTTPException) as error:
        text = " ".join(str(error).split()) or type(error).__name__
        return Outcome.FAILED, f"expected an answer, got a broken connection: {text}"
    return Outcome.PASSED, ""


def _missing(check: Check, reception: Reception) -> str:
    """Why a check cannot be run; "" if it can."""
    probe = reception.probe
    # That the list of models is refused is for the first check to say; one failure tells it better than thirty.
    if reception.refusal and check.need is not Need.NOTHING and check.name != "models":
        return reception.refusal
    match check.need:
        case Need.CHAT_MODEL if not probe.model:
            return "no model to chat with; name one with --model"
        case Need.EMBEDDING_MODEL if not probe.embedding_model:
            return "no model for embeddings; name one with --embedding-model"
        case Need.KEY if probe.client.key is None:
            return "no key was given"
        case _:
            return ""
