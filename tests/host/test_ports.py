import socket

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
