"""What the machines need to know of a request and of an upstream's answer; the texts themselves stay outside."""

from enum import StrEnum
from typing import Final

from attrs import frozen

from gatewright.accounting.spending import KeyFacts
from gatewright.selection.criteria import Prefer, SelectionCriteria
from gatewright.selection.signals import PromptSignals

FIRST_ERROR_STATUS: Final = 400
"""HTTP statuses from here on are errors (RFC 9110, 15)."""


class ApiFormat(StrEnum):
    """Family of an API path: decides how an answer's end, usage and errors look."""

    CHAT = "chat"
    """OpenAI chat completions."""
    COMPLETION = "completion"
    """OpenAI text completions."""
    RESPONSES = "responses"
    """OpenAI responses."""
    MESSAGES = "messages"
    """Anthropic messages."""
    NATIVE = "native"
    """llama-server's own `/completion` and `/infill`."""
    OTHER = "other"
    """Everything else: embeddings, rerank, tokenize, unknown paths."""


@frozen(kw_only=True)
class Wishes:
    """What a client says about the choice of the model: the member `gatewright` of its body, and `x-gw-...` headers.

    Attributes:
        task: Name of the task.
        criteria: Hard conditions besides the route's.
        prefer: What matters most, instead of the route's weights.
        max_attempts: Calls over all models.
        fallbacks: Models to ask in turn, instead of the chain; empty: none at all. None leaves it to the route.
        user: Who asks, for experiments.
        session: Conversation that the request belongs to, for experiments.
    """

    task: str = ""
    criteria: SelectionCriteria | None = None
    prefer: Prefer | None = None
    max_attempts: int | None = None
    fallbacks: tuple[str, ...] | None = None
    user: str | None = None
    session: str | None = None


@frozen(kw_only=True)
class RequestFacts:
    """A request as the Gateway sees it.

    Attributes:
        path: Path and query to send upstream.
        format: API family.
        model: Model named by the client; None where it named none.
        stream: Whether events are wanted.
        sized: Whether prompt and answer must fit the context; False for tokenize and the like.
        prompt_bytes: UTF-8 bytes of all text that becomes prompt (messages, tools, schema).
        prompt_tokens_given: Tokens that the client sent as token ids.
        messages: Number of messages.
        media: Number of images and sounds, whose tokens no text length tells.
        answer_tokens: Limit that the client named for the answer; None for the model's reserve.
        choices: Answers wanted side by side (`n`).
        continuable: A broken answer can be continued by whoever takes its beginning as given: one answer, of free text.
        client_timeout_s: Longest silence that the client puts up with, where it told.
        wishes: What it says about the choice of the model; None where it says nothing.
        features: Values of `Feature` that the request makes necessary: tools, a schema.
        modalities: Values of `Modality` in the prompt besides text.
        signals: Counts over its text; None where nobody is going to ask how hard it is.
        key: Its API key; None where none was needed.
        wants_usage: The stream is to end with the tokens that it took.
    """

    path: str
    format: ApiFormat
    model: str | None = None
    stream: bool = False
    sized: bool = True
    prompt_bytes: int = 0
    prompt_tokens_given: int = 0
    messages: int = 0
    media: int = 0
    answer_tokens: int | None = None
    choices: int = 1
    continuable: bool = False
    client_timeout_s: float | None = None
    wishes: Wishes | None = None
    features: frozenset[str] = frozenset()
    modalities: frozenset[str] = frozenset()
    signals: PromptSignals | None = None
    key: KeyFacts | None = None
    wants_usage: bool = False


@frozen(kw_only=True)
class Usage:
    """Tokens as the upstream counted them.

    Attributes:
        prompt_tokens: Whole prompt, cached part included.
        completion_tokens: Answer.
        cached_tokens: Part of the prompt that came out of the KV cache.
    """

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0


@frozen(kw_only=True)
class UpstreamError:
    """What an upstream's error says: the body of a bad status, or what came in the place of an answer.

    Attributes:
        message: Its text, one line, shortened.
        type: Its type, where there is one.
        code: Its code, where there is one.
        overflow: The prompt does not fit the context.
        prompt_tokens: Exact size of the prompt, where an overflow error tells it.
        context_tokens: Context of the engine, where an overflow error tells it.
        loading: The engine says that it is still loading.
        retry_after_s: From its headers.
        status: HTTP status of 400 or above that the error itself names, where the answer's own status is a good one.
    """

    message: str
    type: str | None = None
    code: str | None = None
    overflow: bool = False
    prompt_tokens: int | None = None
    context_tokens: int | None = None
    loading: bool = False
    retry_after_s: float | None = None
    status: int | None = None


class Resumable(StrEnum):
    """What can be done with the part of a streamed answer that its client has, should the rest not come."""

    NO = "no"
    """Nothing: it holds more than text, or several answers."""
    REPEAT = "repeat"
    """Another answer can take its place if it begins in the same way."""
    CONTINUE = "continue"
    """It is text that a model can be given as the beginning of its answer."""


class Continuation(StrEnum):
    """How an upstream is asked for the rest of an answer of which the client has a part."""

    REPEAT = "repeat"
    """Not at all: it answers anew, and what the client has is cut off if it is the same."""
    ASSISTANT = "assistant"
    """By a last message of the assistant's that holds the part."""
    LLAMACPP = "llama.cpp"
    """The same; and not to think, which llama-server does not take together with it."""
    PREFIX = "prefix"
    """The same, with `"prefix": true` (Mistral, DeepSeek)."""
    CONTINUE_FINAL_MESSAGE = "continue_final_message"
    """The same, with `"continue_final_message": true` (vLLM, SGLang)."""
    PROMPT = "prompt"
    """By a prompt that ends in the part; for text completions, and understood by all."""
