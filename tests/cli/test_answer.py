"""Reading answers without an engine: whatever comes, the reader tells text, end and failure apart."""

import pytest

from gatewright.api.facts import ApiFormat
from gatewright.errors import EngineCrashed
from gatewright_cli.answer import AnswerReader
from gatewright_host.blocking.sink import ClientLost

STREAM = ((b"content-type", b"text/event-stream; charset=utf-8"),)
JSON = ((b"content-type", b"application/json"),)


class Told:
    """What a reader tells."""

    def __init__(self, *, whole: bool = False) -> None:
        self.text = ""
        self.reasoning = ""
        self.reader = AnswerReader(self._text, self._reasoning, whole=whole)

    def _text(self, piece: str) -> None:
        self.text += piece

    def _reasoning(self, piece: str) -> None:
        self.reasoning += piece

    def stream(self, *events: str, size: int = 10_000) -> "Told":
        self.reader.begin(200, STREAM, None)
        data = "".join(f"data: {each}\n\n" for each in events).encode()
        for at in range(0, len(data), size):
            self.reader.write(data[at : at + size])
        self.reader.end()
        return self

    def body(self, text: str, status: int = 200) -> "Told":
        self.reader.begin(status, JSON, len(text))
        self.reader.write(text.encode())
        self.reader.end()
        return self


EVENTS = (
    '{"choices":[{"index":0,"delta":{"role":"assistant","content":null}}]}',
    '{"choices":[{"index":0,"delta":{"reasoning_content":"hm "}}]}',
    '{"choices":[{"index":0,"delta":{"content":"caf"}}]}',
    '{"choices":[{"index":0,"delta":{"content":"é"}}]}',
    '{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}',
    '{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
    "[DONE]",
)


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_in_pieces_of_any_size(size: int) -> None:
    told = Told().stream(*EVENTS, size=size)
    assert (told.text, told.reasoning) == ("café", "hm ")
    assert told.reader.finish_reason == "length"
    assert told.reader.failure is None


def test_a_whole_answer() -> None:
    told = Told().body('{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}')
    assert (told.text, told.reader.failure) == ("Hello", None)


def test_a_whole_answer_kept() -> None:
    told = Told(whole=True).body('{"anything": 1}')
    assert (told.text, told.reader.body) == ("", b'{"anything": 1}')


def test_an_error_instead_of_an_answer() -> None:
    told = Told(whole=True).body('{"error":{"message":"no such thing"}}', 400)
    assert told.reader.failure == "the engine answered 400: no such thing"
    assert told.reader.body == b""


def test_an_error_in_the_stream() -> None:
    told = Told().stream(EVENTS[2], '{"error":{"message":"out of memory","type":"server_error"}}')
    assert (told.text, told.reader.failure) == ("caf", "out of memory")


def test_nonsense() -> None:
    assert Told().body("<html>").reader.failure == "the engine's answer is no chat completion"
    assert Told().stream("nonsense").reader.failure == "the engine's answer is no chat completion"


def test_failures_of_the_gateway() -> None:
    problem = EngineCrashed("it died").problem
    told = Told()
    told.reader.problem(problem, ApiFormat.CHAT, ())
    assert told.reader.failure == "it died"
    told = Told()
    told.reader.begin(200, STREAM, None)
    told.reader.comment("gatewright: loading")
    told.reader.fail_stream(problem, ApiFormat.CHAT)
    assert (told.reader.failure, told.text) == ("it died", "")


def test_nobody_reads_it() -> None:
    def broken(_: str) -> None:
        raise BrokenPipeError

    reader = AnswerReader(broken, broken)
    reader.begin(200, STREAM, None)
    with pytest.raises(ClientLost):
        reader.write(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
    assert reader.reader_gone
