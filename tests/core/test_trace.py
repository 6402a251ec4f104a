import pytest
from attrs import evolve

from gatewright.codec import CodecError
from gatewright.commands import Drained
from gatewright.config import Config, ServerConfig, Tokenization
from gatewright.engines.spec import EngineSpec, ProcessSpec
from gatewright.events import (
    ClientGone,
    ConfigReplaced,
    GatewayStarted,
    LeaseAsked,
    RequestReceived,
    ShutdownRequested,
)
from gatewright.gateway import Gateway
from gatewright.ids import HolderId, LeaseId
from gatewright.leases import LeaseEngine
from gatewright.tracing.trace import TraceLine, handle_traced, read_line, write_line
from tests.core.machines import build


def spec(context: int) -> EngineSpec:
    process = ProcessSpec(
        binary="llama-server",
        args=("--api-key", "hunter2", "--hf-token=hunter2", "-c", str(context)),
        env=(("HF_TOKEN", "hunter2"),),
    )
    return EngineSpec(model="m", context_tokens=context, connect="http://x:${PORT}", process=process)


ASKED = LeaseAsked(holder=HolderId(1), request=LeaseEngine(lease_id=LeaseId(1), variants=(spec(512),)))


def line_of(event: object, **fields: object) -> bytes:
    values: dict[str, object] = {"machine": "gateway", "now": 1.5, "commands": (), **fields}
    return write_line(TraceLine(event=event, **values))  # type: ignore[arg-type]  # each test knows its fields


def test_a_line_comes_back_as_it_was_written() -> None:
    line = TraceLine(
        source="41.2",
        machine="gateway",
        now=1.5,
        event=ShutdownRequested(),
        commands=(Drained(),),
        raised="KeyError",
    )
    written = write_line(line)
    assert written.endswith(b"\n")
    assert written.count(b"\n") == 1
    assert read_line(written) == line


def test_a_line_is_easily_read_by_people() -> None:
    gone = ClientGone(request_id=build.rid("r"))
    line = TraceLine(machine="gateway", now=1.5, event=gone, commands=(Drained(),))
    assert write_line(line, "41") == (
        b'{"source":"41","machine":"gateway","now":1.5,'
        b'"event":{"ClientGone":{"request_id":"r"}},"commands":[{"Drained":{}}]}\n'
    )


def test_secrets_of_a_configuration_are_blanked() -> None:
    config = Config(server=ServerConfig(api_keys=("hunter2", "hunter3")), models=())
    for message in (ConfigReplaced(config=config), GatewayStarted(config=config, seed=2**48 - 1)):
        line = line_of(message)
        assert b"hunter" not in line
        event = read_line(line).event
        assert isinstance(event, type(message))
        first, second = event.config.server.api_keys  # type: ignore[attr-defined]  # both have one
        assert first != second
        assert first.startswith("sha256:")


def test_ordinary_arguments_stay_readable() -> None:
    line = line_of(ASKED)
    assert b"hunter2" not in line
    assert b'"-c","512"' in line
    assert b'"--api-key","sha256:' in line
    assert b'"--hf-token=sha256:' in line
    assert Tokenization(binary="x").args == ()  # the other class with a field of that name


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/chat/completions?key=hunter2", b'"/v1/chat/completions?sha256:'),
        ("/v1/chat/completions?", b'"/v1/chat/completions?"'),
        ("/v1/chat/completions", b'"/v1/chat/completions"'),
    ],
)
def test_what_a_path_asks_for_is_blanked(path: str, told: bytes) -> None:
    event = RequestReceived(request_id=build.rid("r"), facts=evolve(build.chat(), path=path))
    line = line_of(event)
    assert b"hunter2" not in line
    assert told in line


def test_blanking_twice_is_blanking_once() -> None:
    line = line_of(ASKED)
    again = read_line(line)
    assert write_line(again) == line


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"machine":"fleet","now":1,"event":{"X":{}},"commands":[]}',
        b'{"machine":"fleet","now":1,"event":{"Woke":{}}}',
        b'{"machine":"fleet","now":"1","event":{"Woke":{}},"commands":[]}',
        b'{"machine":"fleet","now":1,"event":{"Woke":{}},"commands":[{"Woke":1}]}',
    ],
)
def test_what_is_no_line_is_refused(line: bytes) -> None:
    with pytest.raises(CodecError):
        read_line(line)


# --- telling a machine


def test_what_a_machine_answers_is_told_to_the_trace() -> None:
    lines: list[TraceLine] = []
    gateway = Gateway(build.config())
    commands = handle_traced(gateway, "gateway", ShutdownRequested(), 3.0, lines.append)
    assert commands == [Drained()]
    assert lines == [TraceLine(machine="gateway", now=3.0, event=ShutdownRequested(), commands=(Drained(),))]


def test_without_a_trace_it_is_answered_all_the_same() -> None:
    assert handle_traced(Gateway(build.config()), "gateway", ShutdownRequested(), 3.0, None) == [Drained()]


def test_a_defect_is_on_record_before_anybody_hears_of_it() -> None:
    """The step that matters most. What the exception says may hold secrets, and comes out of a replay anyway."""
    lines: list[TraceLine] = []
    gateway = Gateway(build.config())
    received = RequestReceived(request_id=build.rid("hunter2"), facts=build.chat(given=10))
    handle_traced(gateway, "gateway", received, 0.0, lines.append)
    with pytest.raises(AssertionError, match="hunter2 is under way already"):
        handle_traced(gateway, "gateway", received, 1.0, lines.append)
    assert lines[1] == TraceLine(
        machine="gateway", now=1.0, event=received, commands=(), raised="AssertionError"
    )
