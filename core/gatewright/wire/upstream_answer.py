"""One upstream's answer: held back until it has begun, then passed on. No socket, no clock.

    receive* hold  -> NeedData ... Begun | Unanswered | CallBroken
    receive* pass_on -> NeedData ... AnswerEnded | RelayBroken         take() after each

While it is held, another attempt may still take its place; of a stream that is until its first token is here. A driver
reads the socket whenever either says `NeedData`, and that is all that it does.
"""

from typing import Final, assert_never

from gatewright.api.errors import read_answer_error, read_upstream_error
from gatewright.api.facts import ApiFormat, Continuation, RequestFacts, Usage
from gatewright.events import CallFailure, RelayFailure
from gatewright.wire.answer_kinds import AnswerKind, kind_of, kind_of_bytes
from gatewright.wire.beginnings import holds_token
from gatewright.wire.client import BodyData, ClientExchange, ResponseEnd, ResponseHead, UpstreamBroken
from gatewright.wire.sent_answer import CHARACTERS_PER_TOKEN, SentAnswer
from gatewright.wire.server import NEED_DATA, NeedData
from gatewright.wire.splice import Splice
from gatewright.wire.sse import event_data, split_events
from gatewright.wire.taps import MAX_MALFORMED_EVENTS, BodyTap, PassTap, StreamTap, Tap
from gatewright.wire.verdicts import (
    ANSWER_ENDED,
    UNANSWERED,
    AnswerEnded,
    Begun,
    CallBroken,
    HoldVerdict,
    PassVerdict,
    RelayBroken,
    Unanswered,
)

__all__ = ["AnswerEnded", "Begun", "CallBroken", "NeedData", "RelayBroken", "Unanswered", "UpstreamAnswer"]

ERROR_BODY_BYTES: Final = 65_536
"""More of an upstream's error passes, but is not read for its meaning."""
MAX_HELD_EVENT_BYTES: Final = 65_536
"""A stream that is longer has begun, whether or not its first token was recognised."""
MOST_READ_AGAIN: Final = 2000
"""Events of a stream up to which its text is read for its tokens where nobody counted them."""
MAX_HELD_DOCUMENT_BYTES: Final = 1_048_576
"""A document that is longer has begun; from there on it passes as it comes."""


class UpstreamAnswer:
    """An answer on its way from an upstream to a client.

    Args:
        exchange: The connection, on which the request was sent.
        facts: Of the request.
        sent: What the client has of earlier attempts at this answer; this attempt adds to it.
        continuation: How the upstream was asked for the rest; None if the client has nothing yet.
        must_stream: The client's stream has begun, if only with comments: nothing else can be passed on.
        keeps_usage: The event that tells the tokens was asked for by us, and is not for the client.

    Attributes:
        head: Status and headers, once they are here.
        ended: All of it has come, as far as HTTP knows.
        relayed_bytes: Bytes of body that were taken.
    """

    def __init__(
        self,
        exchange: ClientExchange,
        facts: RequestFacts,
        sent: SentAnswer,
        continuation: Continuation | None = None,
        *,
        must_stream: bool = False,
        keeps_usage: bool = False,
    ) -> None:
        self.head: ResponseHead | None = None
        self.ended = False
        self.relayed_bytes = 0
        self._exchange = exchange
        self._facts = facts
        self._sent = sent
        self._splice = None if continuation is None else Splice(sent, continuation, facts.format)
        self._must_stream = must_stream or continuation is not None
        self._keeps_usage = keeps_usage
        self._kind = AnswerKind.UNKNOWN
        self._tap: Tap = PassTap()
        self._stream: StreamTap | None = None
        self._first = b""  # of a body whose kind is not known yet
        self._out: list[bytes] = []
        self._held_bytes = 0
        self._has_begun = False
        self._tap_finished = False
        self._held: HoldVerdict | None = None
        self._passed: PassVerdict | None = None

    @property
    def usage(self) -> Usage | None:
        """Tokens as the upstream counted them, as far as it has."""
        return self._tap.usage

    @property
    def finish_reason(self) -> str | None:
        """As the upstream put it."""
        return self._tap.finish_reason

    @property
    def relayed_tokens(self) -> int:
        """Tokens of the answer in what was taken, by estimate; 0 where they were counted, and in what is no answer.

        An event is many times as large as its text, so its size tells nothing.
        """
        if self.usage is not None or self._kind is AnswerKind.ERROR:
            return 0
        if self._stream is None:
            return self.relayed_bytes // CHARACTERS_PER_TOKEN
        events = self._stream.events
        if events > MOST_READ_AGAIN or self._splice is not None:
            # Most have a token each. Of another attempt, or of what was cut off, the text is not this one's.
            return events
        likely = self._sent.likely_tokens
        return events if likely is None else likely

    @property
    def in_event(self) -> bool:
        """What was taken ends in the middle of an event, one that is too large to be held."""
        return self._tap.in_event

    @property
    def is_event_stream(self) -> bool:
        """Whether it comes in server-sent events."""
        return self._stream is not None

    @property
    def content_length(self) -> int | None:
        """Size of the body for the client, where it is known: events may be dropped on the way, and added."""
        return None if self.head is None or self.is_event_stream else self.head.content_length

    @property
    def is_finished(self) -> bool:
        """The model has said its last word: nothing but usage and the mark of the end can follow."""
        return (
            self._stream is not None and self._stream.complete and self._facts.format is not ApiFormat.OTHER
        )

    def receive(self, data: bytes) -> None:
        """Take in what the socket brought; b"" stands for the end of file."""
        self._exchange.receive(data)

    def take(self) -> bytes:
        """What may go to the client now, and counts as sent; b"" if there is nothing, as while it is held back."""
        out = self._out
        if not out or not isinstance(self._held, Begun):
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        self.relayed_bytes += len(data)
        if self._stream is not None:
            self._sent.keep(data)
        return data

    # --- holding

    def hold(self) -> NeedData | HoldVerdict:
        """Read what was received until the answer has begun; again after each `receive`, until there is a verdict."""
        while self._held is None:
            match self._exchange.next_event():
                case NeedData():
                    return NEED_DATA
                case ResponseHead() as head:
                    self.head = head
                    self._held = self._set_kind(kind_of(head, self._facts.format))
                case BodyData(data=data):
                    self._held = self._hold_data(data)
                case ResponseEnd():
                    self.ended = True
                    self._held = self._hold_end()
                case UpstreamBroken(unanswered=True):
                    self._held = UNANSWERED
                case UpstreamBroken(reason=reason):
                    self._held = CallBroken(CallFailure.BROKEN, reason)
                case _ as unreachable:
                    assert_never(unreachable)
        return self._held

    def _set_kind(self, kind: AnswerKind) -> CallBroken | None:
        self._kind = kind
        if kind is AnswerKind.WRONG:
            return _malformed(f"the upstream answered with {self._content_type}, not with an answer")
        if self._must_stream and kind in {AnswerKind.DOCUMENT, AnswerKind.OPAQUE}:
            return _malformed("the upstream was asked for a stream, and answered with something else")
        if kind is AnswerKind.STREAM:
            self._tap = self._stream = StreamTap(
                self._facts.format, self._facts.choices, keeps_usage=self._keeps_usage
            )
        elif kind is AnswerKind.DOCUMENT:
            self._tap = BodyTap(self._facts.format)
        return None

    @property
    def _content_type(self) -> str:
        content_type = self.head.get("content-type") if self.head is not None else None
        return f"'{content_type[:100]}'" if content_type else "no content type"

    def _hold_data(self, data: bytes) -> HoldVerdict | None:
        match self._kind:
            case AnswerKind.STREAM:
                self._hold_events(self._through_splice(self._tap.feed(data)))
                return self._stream_verdict()
            case AnswerKind.UNKNOWN:
                self._first += data
                return self._find_kind(is_all=False)
            case AnswerKind.ERROR:
                self._put(data)
                return self._error_verdict() if self._held_bytes > ERROR_BODY_BYTES else None
            case AnswerKind.DOCUMENT:
                self._put(self._tap.feed(data))
                return self._begun() if self._held_bytes > MAX_HELD_DOCUMENT_BYTES else None
            case AnswerKind.OPAQUE | AnswerKind.WRONG:
                self._put(data)
                return self._begun()

    def _hold_end(self) -> HoldVerdict:
        match self._kind:
            case AnswerKind.STREAM:
                return self._stream_end_verdict()
            case AnswerKind.UNKNOWN:
                return self._find_kind(is_all=True) or self._hold_end()
            case AnswerKind.ERROR:
                return self._error_verdict()
            case AnswerKind.DOCUMENT:
                return self._document_verdict()
            case AnswerKind.OPAQUE | AnswerKind.WRONG:
                return self._begun()

    def _find_kind(self, *, is_all: bool) -> HoldVerdict | None:
        """See whether the first bytes tell what the headers did not."""
        kind = kind_of_bytes(self._first, is_all=is_all or len(self._first) > MAX_HELD_EVENT_BYTES)
        if kind is AnswerKind.UNKNOWN:
            return None
        if kind is AnswerKind.OPAQUE and self._facts.format is not ApiFormat.OTHER:
            kind = AnswerKind.WRONG
        first, self._first = self._first, b""
        verdict = self._set_kind(kind)
        return self._hold_data(first) if verdict is None and first else verdict

    def _begun(self) -> Begun:
        return Begun(self._status)

    @property
    def _status(self) -> int:
        assert self.head is not None
        return self.head.status

    def _put(self, data: bytes) -> None:
        if data:
            self._out.append(data)
            self._held_bytes += len(data)

    def _error_verdict(self) -> Begun:
        assert self.head is not None
        error = read_upstream_error(self.head.status, self.head.headers, b"".join(self._out))
        return Begun(self.head.status, error)

    def _document_verdict(self) -> HoldVerdict:
        """What a complete document is."""
        body = b"".join(self._out)
        self._finish_tap()
        is_known = self._facts.format is not ApiFormat.OTHER
        if not self._tap.complete or (is_known and not body.lstrip().startswith((b"{", b"["))):
            return _malformed(
                "the upstream's answer is no JSON" if body else "the upstream's answer is empty"
            )
        if self._tap.saw_error:
            return self._refused(body)
        return self._begun()

    def _refused(self, document: bytes) -> Begun:
        assert self.head is not None
        return Begun(self.head.status, read_answer_error(self.head.headers, document))

    # --- holding a stream

    def _through_splice(self, block: bytes) -> bytes:
        return self._splice.feed(block) if self._splice is not None and block else block

    def _finish_tap(self) -> bytes:
        """What the tap still holds, once."""
        if self._tap_finished:
            return b""
        self._tap_finished = True
        return self._through_splice(self._tap.finish())

    def _hold_events(self, block: bytes) -> None:
        """Keep events, and look for the first token among them."""
        if not block:
            return
        self._out.append(block)
        for event in split_events(block):
            if self._has_begun:
                return
            self._held_bytes += len(event)
            data = event_data(event)
            self._has_begun = self._held_bytes > MAX_HELD_EVENT_BYTES or (
                data is not None and data.strip() != b"[DONE]" and holds_token(self._facts.format, data)
            )

    def _stream_verdict(self) -> HoldVerdict | None:
        stream = self._stream
        assert stream is not None
        if self._has_begun:
            return self._begun()
        if self._splice is not None and self._splice.difference:
            return CallBroken(CallFailure.DIFFERENT, self._splice.difference)
        if stream.refusal is not None:
            self._out.clear()
            return self._refused(stream.refusal)
        if stream.malformed > MAX_MALFORMED_EVENTS:
            return _malformed("the upstream sends events that are no JSON")
        return _malformed("the upstream's stream ended before its first token") if stream.closed else None

    def _stream_end_verdict(self) -> HoldVerdict:
        self._hold_events(self._finish_tap())
        verdict = self._stream_verdict()
        if verdict is not None:
            return verdict
        if self._tap.complete:
            return self._begun()
        return _malformed("the upstream's stream ended before its first token")

    # --- passing on

    def pass_on(self) -> NeedData | PassVerdict:
        """Pass on what was received; again after each `receive`, until there is a verdict. `take` follows each call."""
        while self._passed is None:
            stream = self._stream
            if stream is not None and stream.closed and (trouble := self._trouble(stream)) is not None:
                return self._conclude(trouble)
            if self.ended:
                return self._conclude(None)
            match self._exchange.next_event():
                case NeedData():
                    return NEED_DATA
                case BodyData(data=data):
                    data = self._through_splice(self._tap.feed(data))
                    if data:
                        self._out.append(data)
                case ResponseEnd():
                    self.ended = True
                case UpstreamBroken(reason=reason):
                    return self._conclude(RelayBroken(RelayFailure.BROKEN, reason))
                case ResponseHead():
                    raise AssertionError("a second head")
                case _ as unreachable:
                    assert_never(unreachable)
        return self._passed

    def give_up(self, failure: RelayFailure, reason: str) -> PassVerdict:
        """The driver does not go on: a timeout, a socket that broke. A good end all the same if the model is finished."""
        return self._conclude(RelayBroken(failure, reason))

    def _trouble(self, stream: StreamTap) -> RelayBroken | None:
        """What has closed a stream, if it is not its end."""
        if stream.refusal is not None:
            assert self.head is not None
            error = read_answer_error(self.head.headers, stream.refusal)
            return RelayBroken(RelayFailure.REFUSED, f"the upstream broke off: {error.message}", error)
        if stream.malformed > MAX_MALFORMED_EVENTS:
            return RelayBroken(RelayFailure.MALFORMED, "the upstream sends events that are no JSON")
        return None

    def _conclude(self, trouble: RelayBroken | None) -> PassVerdict:
        """The verdict, which stays; an answer whose model is finished gets its proper end whatever the trouble is."""
        if self._passed is not None:
            return self._passed
        stream = self._stream
        if trouble is None or self._can_end_well:
            rest = self._finish_tap()
            if rest:
                self._out.append(rest)
            if trouble is None and stream is not None:
                trouble = self._trouble(stream)
        if self._can_end_well:
            trouble = None
        elif trouble is None and not self._tap.complete:
            reason = "the upstream's answer ended without its last event"
            trouble = RelayBroken(RelayFailure.INCOMPLETE, reason)
        self._passed = ANSWER_ENDED if trouble is None else trouble
        return self._passed

    @property
    def _can_end_well(self) -> bool:
        """An end can be made here, whatever becomes of the upstream."""
        return self.is_finished and not self.in_event


def _malformed(reason: str) -> CallBroken:
    return CallBroken(CallFailure.MALFORMED, reason)
