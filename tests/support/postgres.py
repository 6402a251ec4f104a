"""A real PostgreSQL server of the tests' own, where its programs are installed; on a Unix socket, in a directory that goes."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from gatewright_host.process import die_with_parent

_PATIENCE_S = 30.0
_UNPRIVILEGED = ("postgres", "nobody")
_OPTIONS = (
    *("-c", "listen_addresses="),
    *("-c", "fsync=off"),
    *("-c", "synchronous_commit=off"),
    *("-c", "full_page_writes=off"),
    *("-c", "max_connections=60"),
    *("-c", "shared_buffers=16MB"),
    *("-c", "autovacuum=off"),
)


@frozen
class Postgres:
    """A server that runs.

    Attributes:
        directory: Of its socket.
        server: Its process.
    """

    directory: Path
    server: subprocess.Popen[bytes]

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://gatewright@/{database}?host={self.directory}"

    def pause(self) -> None:
        """Let all of it hang, as a machine does that swaps, or a network that swallows."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        children = Path(f"/proc/{self.server.pid}/task/{self.server.pid}/children").read_text().split()
        for pid in (self.server.pid, *map(int, children)):
            os.kill(pid, number)


def find_programs() -> Path | None:
    """Directory of `initdb` and `postgres`; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    in_path = shutil.which("initdb")
    return Path(in_path).resolve().parent if in_path else None


@contextmanager
def running_postgres(programs: Path) -> Iterator[Postgres]:
    """A new server, which is gone afterwards with all its files."""
    # Socket paths are short, and those of pytest's directories are not; others than root must get there.
    directory = Path(tempfile.mkdtemp(prefix="gwpg-", dir="/tmp"))
    identity: dict[str, object] = {}
    if os.geteuid() == 0:
        # The server refuses to run as root.
        user = next(name for name in _UNPRIVILEGED if _exists(name))
        account = pwd.getpwnam(user)
        os.chown(directory, account.pw_uid, account.pw_gid)
        identity = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC", "HOME": str(directory)}
    data = directory / "data"
    try:
        subprocess.run(  # type: ignore[call-overload]
            [programs / "initdb", "-D", data, "-U", "gatewright", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            capture_output=True,
            cwd=directory,
            env=environment,
            **identity,
        )
        server = subprocess.Popen(  # type: ignore[call-overload]
            [programs / "postgres", "-D", data, "-k", directory, *_OPTIONS],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=directory,
            env=environment,
            preexec_fn=die_with_parent(),  # noqa: PLW1509  # says itself why it is safe
            **identity,
        )
        try:
            _wait_until_ready(programs, directory, server)
            yield Postgres(directory, server)
        finally:
            server.send_signal(signal.SIGCONT)
            server.send_signal(signal.SIGQUIT)
            server.wait(_PATIENCE_S)
    finally:
        shutil.rmtree(directory)


def _wait_until_ready(programs: Path, directory: Path, server: "subprocess.Popen[bytes]") -> None:
    give_up_at = time.monotonic() + _PATIENCE_S
    while time.monotonic() < give_up_at:
        assert server.poll() is None, "postgres has exited"
        asked = subprocess.run(
            [programs / "pg_isready", "-q", "-h", directory, "-U", "gatewright"], check=False
        )
        if asked.returncode == 0:
            return
        time.sleep(0.05)
    raise AssertionError("postgres is not ready")


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
