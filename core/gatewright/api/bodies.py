"""Request bodies as far as anyone here reads them; everything else in them is the engine's business."""

from typing import Any, Final

import msgspec

from gatewright.errors import InvalidRequest

_ABSENT: Final = msgspec.Raw()


class Body(msgspec.Struct):
    """The fields that are read, of all endpoints together. None where absent; `Raw` stays undecoded."""

    model: Any = None
    stream: Any = None
    stream_options: Any = None
    # texts
    messages: Any = None
    prompt: Any = None
    input: Any = None
    content: Any = None
    system: Any = None
    instructions: Any = None
    suffix: Any = None
    input_prefix: Any = None
    input_suffix: Any = None
    input_extra: Any = None
    query: Any = None
    documents: Any = None
    texts: Any = None
    # become text by way of a template
    tools: msgspec.Raw = _ABSENT
    functions: msgspec.Raw = _ABSENT
    response_format: msgspec.Raw = _ABSENT
    text: msgspec.Raw = _ABSENT
    # limits of the answer
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n_predict: Any = None
    # how many answers, and of what
    n: Any = None
    best_of: Any = None
    echo: Any = None
    logprobs: Any = None
    grammar: msgspec.Raw = _ABSENT
    json_schema: msgspec.Raw = _ABSENT
    # vLLM's and SGLang's names for the same
    structured_outputs: msgspec.Raw = _ABSENT
    guided_json: msgspec.Raw = _ABSENT
    guided_regex: msgspec.Raw = _ABSENT
    guided_choice: msgspec.Raw = _ABSENT
    guided_grammar: msgspec.Raw = _ABSENT
    regex: msgspec.Raw = _ABSENT
    ebnf: msgspec.Raw = _ABSENT
    # about the choice of the model, and for whom
    gatewright: msgspec.Raw = _ABSENT
    reasoning_effort: Any = None
    user: Any = None
    safety_identifier: Any = None
    session_id: Any = None
    prompt_cache_key: Any = None
    conversation: Any = None
    metadata: msgspec.Raw = _ABSENT
    output_format: msgspec.Raw = _ABSENT
    output_config: msgspec.Raw = _ABSENT


_NOTHING: Final = frozenset((b"", b"null", b'""', b"false"))
_LONGEST_NOTHING: Final = max(map(len, _NOTHING))
_DECODER: Final = msgspec.json.Decoder(Body)


def read_body(body: bytes) -> Body:
    """Decode a request body.

    Raises:
        InvalidRequest: It is no JSON object.
    """
    try:
        return _DECODER.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The request body must be a JSON object: {error}") from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from error
    except UnicodeDecodeError:
        raise InvalidRequest(f"The request body is not valid UTF-8 (byte {_bad_byte(body)})") from None
    except RecursionError:
        raise InvalidRequest("The request body is nested too deeply") from None


def is_given(value: msgspec.Raw) -> bool:
    """Whether a member that stays undecoded says anything."""
    return value is not _ABSENT and (
        len(memoryview(value)) > _LONGEST_NOTHING or bytes(value) not in _NOTHING
    )


def _bad_byte(body: bytes) -> int:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return error.start
    return 0
