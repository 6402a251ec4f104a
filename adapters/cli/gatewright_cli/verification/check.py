"""What a check is, and what it gets to know of the gateway."""

from collections.abc import Callable
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final

from attrs import define, field, frozen

from gatewright_cli.verification.client import Answer, Client
from gatewright_cli.verification.outcome import document_of, expect_status

CHAT: Final = "/v1/chat/completions"
NO_MODEL: Final = "no-such-model-of-gw-cli-verify"


class Group(StrEnum):
    """Whose promise a check holds a gateway to."""

    STANDARD = "standard"
    """HTTP's and OpenAI's: every client relies on it."""
    GATEWRIGHT = "gatewright"
    """Gatewright's own."""


class Need(StrEnum):
    """What a check cannot do without."""

    NOTHING = "nothing"
    ACCESS = "access"
    CHAT_MODEL = "chat model"
    EMBEDDING_MODEL = "embedding model"
    KEY = "key"


@frozen
class Probe:
    """One gateway as the checks see it.

    Attributes:
        client: Talks to it.
        model: Model that chats; "" for none.
        embedding_model: Model that embeds; "" for none.
    """

    client: Client
    model: str
    embedding_model: str

    def chat_body(self, text: str = "Say hello.", *, max_tokens: int = 8, **members: Any) -> dict[str, Any]:
        """The body of a small question; members of it can be replaced and added."""
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": max_tokens,
        }
        return {**body, **members}

    def chat(self, text: str = "Say hello.", *, max_tokens: int = 8, **members: Any) -> Answer:
        """Ask a small question; arguments as of `chat_body`."""
        return self.client.post(CHAT, self.chat_body(text, max_tokens=max_tokens, **members))

    def completion(self, text: str = "Say hello.", *, max_tokens: int = 8, **members: Any) -> dict[str, Any]:
        """The completion of a small question; arguments as of `chat_body`.

        Raises:
            Failed: The answer is something else.
        """
        answer = self.chat(text, max_tokens=max_tokens, **members)
        expect_status(answer, (HTTPStatus.OK,), "200 and a completion")
        return document_of(answer)


CheckFunction = Callable[[Probe], None]
"""Returns if all is well, and raises `Failed` or `Skipped`; what the connection raises is a failure too."""


@frozen
class Check:
    """One thing that is looked at.

    Attributes:
        name: For `--only` and the table.
        promise: What holds if it passes, in a few words.
        need: What it cannot do without.
        group: Whose promise it is.
        run: Does it.
    """

    name: str
    promise: str
    need: Need
    group: Group
    run: CheckFunction


@define
class Checks:
    """The checks of a module, in their order.

    Attributes:
        group: Of all of them.
        found: The checks.
    """

    group: Group = Group.STANDARD
    found: list[Check] = field(factory=list)

    def check(
        self, name: str, promise: str, need: Need = Need.CHAT_MODEL
    ) -> Callable[[CheckFunction], CheckFunction]:
        """Adds the decorated function."""

        def add(function: CheckFunction) -> CheckFunction:
            self.found.append(Check(name, promise, need, self.group, function))
            return function

        return add
