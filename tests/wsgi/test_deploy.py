"""The files in deploy/, used as they are but for the paths."""

import configparser
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

import gunicorn.config
import pytest

from tests.support.gateway import Gateway, model_lua, wait_until
from tests.support.gunicorn import GUNICORN, GunicornGateway
from tests.wsgi.test_workers import served_by

DEPLOY = Path(__file__).parents[2] / "deploy"
CONF = DEPLOY / "gunicorn.conf.py"
UNITS = ("gatewright-wsgi.service", "gatewright.service")
BIN = GUNICORN.parent


def adapted(unit: str) -> str:
    """A unit for the programs of this environment."""
    text = (DEPLOY / unit).read_text()
    return text.replace("/opt/gatewright/bin", str(BIN)).replace(
        "/etc/gatewright/gunicorn.conf.py", str(CONF)
    )


class Unit:
    """A systemd unit's service part; options may come twice."""

    def __init__(self, text: str) -> None:
        lines = [line for line in text.splitlines() if line and not line.startswith(("#", "["))]
        self.options = [tuple(line.split("=", 1)) for line in lines]

    def all(self, name: str) -> list[str]:
        return [value for option, value in self.options if option == name]


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_accepts_the_units(unit: str, tmp_path: Path) -> None:
    configparser.RawConfigParser(strict=False).read_string(adapted(unit))
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    (tmp_path / unit).write_text(adapted(unit))
    done = subprocess.run(
        [program, "verify", "--man=no", tmp_path / unit],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    complaints = [line for line in done.stderr.splitlines() if unit in line]
    assert not complaints


def run_as_systemd_does(gateway: Gateway, unit: str) -> list[str]:
    """Give a gateway the environment of a unit, and return the unit's command."""
    service = Unit(adapted(unit))
    directory = gateway.directory
    (directory / "run").mkdir(mode=0o700)
    for setting in service.all("Environment"):
        name, _, value = setting.partition("=")
        value = value.replace("/etc/gatewright", str(directory)).replace(
            "/var/lib/gatewright", f"{directory}/state"
        )
        gateway._env[name] = value.replace("/run/gatewright", str(directory))
    (command,) = service.all("ExecStart")
    return shlex.split(command)


@pytest.mark.engine
def test_gunicorn_runs_by_its_unit_and_configuration(tiny_model: Path) -> None:
    gateway = GunicornGateway(
        model_lua("tiny", tiny_model, (1024,)), env={"GUNICORN_CMD_ARGS": "--bind 127.0.0.1:0"}
    )
    gateway._command = run_as_systemd_does(gateway, "gatewright-wsgi.service")
    with gateway:
        assert len(gateway.workers()) == 2
        assert gateway.chat("tiny")[0] == 200
        reload(gateway, "gatewright-wsgi.service")
        wait_until(lambda: gateway.log.count("Booting worker") == 4, "new workers")
        assert gateway.chat("tiny")[0] == 200
        # A worker says that it boots before it reads the configuration: it is there once it answers.
        wait_until(lambda: gateway.log.count("Worker exiting") == 2, "the old ones are gone")
        assert len(served_by(gateway)) == 2
        gateway.config.write_text("server = {")
        with pytest.raises(subprocess.CalledProcessError):
            reload(gateway, "gatewright-wsgi.service")
        assert gateway.chat("tiny")[0] == 200


@pytest.mark.engine
def test_gw_server_runs_by_its_unit(tiny_model: Path) -> None:
    gateway = Gateway(model_lua("tiny", tiny_model, (1024,)))
    assert run_as_systemd_does(gateway, "gatewright.service") == [str(BIN / "gw-server")]
    with gateway:
        assert gateway.chat("tiny")[0] == 200
        reload(gateway, "gatewright.service")
        wait_until(lambda: "configuration replaced" in gateway.log, "the configuration is read again")


def reload(gateway: Gateway, unit: str) -> None:
    """What `systemctl reload` does: one command after the other, up to the first that fails."""
    for command in Unit(adapted(unit)).all("ExecReload"):
        words = shlex.split(command.replace("$MAINPID", str(gateway.pid)))
        subprocess.run(words, env=gateway._env, check=True, capture_output=True, timeout=30)


def test_everything_in_the_configuration_is_a_setting_of_gunicorn() -> None:
    """It ignores what it does not know, misspelled or not."""
    names = {name for name in runpy.run_path(str(CONF)) if not name.startswith("_")}
    assert names <= set(gunicorn.config.make_settings())
