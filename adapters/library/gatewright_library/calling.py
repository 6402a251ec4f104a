"""Calling a model where it is served: the `openai` package, which all providers of the presets understand."""

import asyncio
import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from attrs import frozen

from gatewright.configuration.reader import hint
from gatewright.errors import GatewrightError, ModelNotFound
from gatewright.presets import PROVIDERS
from gatewright_host.extras import how_to_install
from gatewright_library.models import DEFAULT_MODELS, ModelConfig
from gatewright_library.tasks import render_inputs, task_description, task_name

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

CALL_TIMEOUT_S: Final = 60.0
_API_PATH: Final = "/v1"
_NO_KEY: Final = "none"
"""Servers of one's own want none, the client does."""


class ProviderUnknown(GatewrightError, ValueError):
    """A model's provider is none of the presets, and nobody has said where it is."""

    status = 400
    type = "invalid_request_error"
    code = "provider_unknown"
    should_retry = False


@frozen(kw_only=True)
class ModelAnswer:
    """What a model has answered.

    Attributes:
        text: The answer.
        prompt_tokens: Whole prompt, the cached part included; None where nobody counted.
        completion_tokens: Answer; None where nobody counted.
        cached_tokens: Part of the prompt that came out of a cache.
        finish_reason: Why it ended, in the provider's words.
    """

    text: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int = 0
    finish_reason: str | None = None

    def __str__(self) -> str:
        return self.text


def config_of(name: str, models: Mapping[str, ModelConfig] = DEFAULT_MODELS) -> ModelConfig:
    """The model of that name.

    Raises:
        ModelNotFound: There is none.
    """
    if name not in models:
        raise ModelNotFound(name)
    return models[name]


def messages_of(task: object, inputs: object) -> list[dict[str, str]]:
    """A task as a chat: what it says of itself as the system's message, its inputs as the user's."""
    instructions = task_description(task) or f"Task: {task_name(task)}"
    return [
        {"role": "system", "content": instructions},
        {"role": "user", "content": render_inputs(inputs)},
    ]


class OpenAICaller:
    """Calls models with the `openai` package (the extra `library`). May be used from any thread.

    Retries are the executor's; the client itself makes none.

    Args:
        base_urls: By provider, where it is not where the presets say; with the API path, such as `/v1`.
        api_keys: By provider; others are read from the environment variables that the presets name.
        timeout_s: Longest wait for one answer.
        parameters: Members of every request, such as `{"temperature": 0}`.
    """

    def __init__(
        self,
        *,
        base_urls: Mapping[str, str] | None = None,
        api_keys: Mapping[str, str] | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self._base_urls = dict(base_urls or {})
        self._api_keys = dict(api_keys or {})
        self._timeout_s = timeout_s
        self._parameters = dict(parameters or {})
        self._lock = threading.Lock()  # over the clients
        self._clients: dict[str, OpenAI] = {}
        # A client's connections belong to the event loop on which they were opened.
        self._async_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, AsyncOpenAI]] = (
            weakref.WeakKeyDictionary()
        )

    def __call__(self, model: ModelConfig, task: object, inputs: object) -> ModelAnswer:
        """Ask a model to do a task."""
        return self.ask(model, messages_of(task, inputs))

    async def acall(self, model: ModelConfig, task: object, inputs: object) -> ModelAnswer:
        """Ask a model to do a task."""
        client = self._async_client(model.provider)
        answer = await client.chat.completions.create(**self._request(model, messages_of(task, inputs)))
        return _answer(answer)

    def ask(self, model: ModelConfig, messages: Iterable[Mapping[str, str]]) -> ModelAnswer:
        """Ask a model to go on with a chat.

        Args:
            model: The model.
            messages: The chat.

        Raises:
            ProviderUnknown: Nobody has said where its provider is.
            openai.OpenAIError: There is no answer.
        """
        client = self._client(model.provider)
        return _answer(client.chat.completions.create(**self._request(model, messages)))

    def close(self) -> None:
        """Close the connections of threads."""
        with self._lock:
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            client.close()

    async def aclose(self) -> None:
        """Close the connections of this event loop, and those of threads."""
        with self._lock:
            clients = self._async_clients.pop(asyncio.get_running_loop(), {})
        for client in clients.values():
            await client.close()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _request(self, model: ModelConfig, messages: Iterable[Mapping[str, str]]) -> dict[str, Any]:
        return {**self._parameters, "model": model.upstream_name, "messages": [*messages]}

    def _client(self, provider: str) -> "OpenAI":
        with self._lock:
            client = self._clients.get(provider)
            if client is None:
                client = self._clients[provider] = _openai().OpenAI(**self._settings(provider))
            return client

    def _async_client(self, provider: str) -> "AsyncOpenAI":
        loop = asyncio.get_running_loop()
        with self._lock:
            clients = self._async_clients.setdefault(loop, {})
            client = clients.get(provider)
            if client is None:
                client = clients[provider] = _openai().AsyncOpenAI(**self._settings(provider))
            return client

    def _settings(self, provider: str) -> dict[str, Any]:
        preset = PROVIDERS.get(provider)
        base_url = self._base_urls.get(provider)
        if base_url is None:
            if preset is None:
                raise ProviderUnknown(
                    f"Nothing is known of the provider '{provider}'; {hint(provider, PROVIDERS)}; the URL of a provider of "
                    "your own goes into `base_urls` of OpenAICaller"
                )
            base_url = preset.connect + _API_PATH
        api_key = self._api_keys.get(provider)
        if api_key is None and preset is not None and preset.api_key_env is not None:
            api_key = os.environ.get(preset.api_key_env)
        return {
            "base_url": base_url,
            "api_key": api_key or _NO_KEY,
            "timeout": self._timeout_s,
            "max_retries": 0,
        }


def _openai() -> Any:
    try:
        import openai  # noqa: PLC0415  # an optional extra
    except ImportError as error:
        raise ImportError(
            f"Models are called with the openai package, which is missing: {how_to_install('library')}; or give Executor "
            "a `call`"
        ) from error
    return openai


def _answer(completion: Any) -> ModelAnswer:
    """A chat completion as an answer; servers of one's own leave much of it out."""
    choices = getattr(completion, "choices", None)
    if not choices:
        raise GatewrightError("The upstream's answer holds no choices")
    usage = getattr(completion, "usage", None)
    details = getattr(usage, "prompt_tokens_details", None)
    return ModelAnswer(
        text=choices[0].message.content or "",
        prompt_tokens=getattr(usage, "prompt_tokens", None),
        completion_tokens=getattr(usage, "completion_tokens", None),
        cached_tokens=getattr(details, "cached_tokens", None) or 0,
        finish_reason=choices[0].finish_reason,
    )
