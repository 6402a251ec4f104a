import socket
from pathlib import Path

import pytest
from attrs import evolve

from gatewright_host import ports as module
from gatewright_host.ports import Ports
from tests.support.host import fake_spec


def test_the_port_is_filled_in_everywhere() -> None:
    spec = fake_spec()
    assert spec.process is not None
    process = evolve(
        spec.process, args=("--port", "${PORT}", "x${PORT}y"), env=(("WHERE", "127.0.0.1:${PORT}"),)
    )
    filled = Ports().fill(evolve(spec, process=process, connect="http://127.0.0.1:${PORT}/api"))
    port = str(filled.port)
    assert filled.process.args == ("--port", port, f"x{port}y")
    assert filled.process.env == (("WHERE", f"127.0.0.1:{port}"),)
    assert filled.base_url == f"http://127.0.0.1:{port}/api"


def test_a_fixed_port_is_left_alone() -> None:
    spec = fake_spec()
    assert spec.process is not None
    spec = evolve(spec, process=evolve(spec.process, args=()), connect="http://127.0.0.1:8081")
    filled = Ports().fill(spec)
    assert (filled.process, filled.base_url, filled.port) == (spec.process, spec.connect, None)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "no-such-host.invalid", "x" * 70])
def test_a_chosen_port_is_free(host: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", Ports().choose(host)))


def test_a_port_is_none_that_an_outgoing_connection_may_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outgoing = tmp_path / "ip_local_port_range"
    monkeypatch.setattr(module, "_OUTGOING_FILE", outgoing)
    for known in ("25000\t60999\n", "", "a lot"):
        outgoing.write_text(known)
        chosen = [Ports().choose("127.0.0.1") for _ in range(50)]
        assert all(20_000 <= port < (25_000 if known.startswith("25000") else 30_000) for port in chosen)
        assert len(set(chosen)) > 25, "gateways side by side hardly ever choose the same"


def test_where_outgoing_connections_take_any_port_the_system_chooses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    outgoing = tmp_path / "ip_local_port_range"
    monkeypatch.setattr(module, "_OUTGOING_FILE", outgoing)
    outgoing.write_text("1024 65535")
    asked: list[int] = []
    monkeypatch.setattr(module, "_bind", lambda _, port: asked.append(port) or 5000)
    assert Ports().choose("127.0.0.1") == 5000
    assert asked == [0]


def test_a_port_in_use_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        taken = other.getsockname()[1]
        offers = iter([taken, taken, port])
        monkeypatch.setattr(module, "_outgoing_ports", lambda: range(0))
        monkeypatch.setattr(module.secrets, "choice", lambda _: next(offers))
        assert Ports().choose("127.0.0.1") == port


def test_no_two_engines_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    offers = iter([5000, 5000, 5000, 5001, 5000])
    monkeypatch.setattr(module, "_free_port", lambda _: next(offers))
    ports = Ports()
    assert ports.choose("x") == 5000
    assert ports.choose("x") == 5001
    ports.give_back(5000)
    ports.give_back(None)
    assert ports.choose("x") == 5000


def test_it_gives_up_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_free_port", lambda _: 5000)
    ports = Ports()
    ports.choose("x")
    with pytest.raises(OSError, match="no free port"):
        ports.choose("x")
