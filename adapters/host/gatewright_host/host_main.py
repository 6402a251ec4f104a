"""The detached engine host: a process that runs engines for whoever attaches and ends when nobody needs it.

Started by clients (`host_client`); by hand: `python -m gatewright_host.host_main --state-dir DIR [--linger S]`.
"""

import logging
import os
import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gatewright.tracing.trace import Trace
    from gatewright_host.engine_host import EngineHost
    from gatewright_host.state_dir import StateDir

DEFAULT_LINGER_S: Final = 10.0
DEFAULT_GRACE_S: Final = 30.0
_LOCK_TIMEOUT_S: Final = 30.0
_LOCK_POLL_S: Final = 0.02


def main(argv: list[str] | None = None) -> int:
    """Run until nobody needs it, or until SIGTERM or SIGINT and a time of grace; a second signal ends it by force.

    Returns:
        0, also where another host of the state directory runs already; 1 if it cannot run.
    """
    args = sys.argv[1:] if argv is None else argv
    if "--detach" in args and os.fork() != 0:
        # Before anything is loaded: the client waits for this process, and the host is not its child.
        os._exit(0)  # its public name: no clean-up of what the child goes on with
    # Loaded after the fork, for the same reason.
    import argparse  # noqa: PLC0415
    import asyncio  # noqa: PLC0415

    parser = argparse.ArgumentParser(
        prog="gatewright_host.host_main", description="The detached engine host."
    )
    parser.add_argument("--state-dir", required=True, help="its lock, socket, records and logs")
    parser.add_argument(
        "--linger",
        type=float,
        default=DEFAULT_LINGER_S,
        metavar="S",
        help="seconds to stay without engines and clients (default: %(default)g)",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=DEFAULT_GRACE_S,
        metavar="S",
        help="seconds that requests under way get after a signal (default: %(default)g)",
    )
    parser.add_argument("--detach", action="store_true", help="go on in the background")
    options = parser.parse_args(args)
    return asyncio.run(_run(options.state_dir, options.linger, options.grace))


async def _run(state_dir: str, linger_s: float, grace_s: float) -> int:
    import asyncio  # noqa: PLC0415  # as above

    from gatewright.config import LogFormat, LogLevel  # noqa: PLC0415
    from gatewright_host.log_setup import set_up_logging  # noqa: PLC0415
    from gatewright_host.state_dir import StateDir, StateDirError  # noqa: PLC0415
    from gatewright_host.trace_file import open_trace  # noqa: PLC0415

    set_up_logging(LogLevel.INFO, LogFormat.TEXT)
    try:
        return await _host(StateDir.at(state_dir), linger_s, grace_s, open_trace(os.environ))
    except asyncio.CancelledError:  # a signal while another host was waited for
        return 0
    except (StateDirError, OSError) as error:
        sys.stderr.write(f"the engine host cannot run: {error}\n")
        return 1


async def _host(state: "StateDir", linger_s: float, grace_s: float, trace: "Trace | None") -> int:
    """Become the host as soon as one that is ending has ended; one that is there to stay makes us superfluous."""
    import asyncio  # noqa: PLC0415  # as above

    from gatewright_host.engine_host import EngineHost, HostRunning  # noqa: PLC0415
    from gatewright_host.host_lock import is_reachable  # noqa: PLC0415

    give_up_at = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        host = EngineHost(state, linger_s=linger_s, trace=trace)
        _obey_signals(host, grace_s)
        try:
            async with host:
                await _serve(host)
        except HostRunning:
            if is_reachable(state.lock_file) or time.monotonic() >= give_up_at:
                return 0
            await asyncio.sleep(_LOCK_POLL_S)
        else:
            return 0


def _obey_signals(host: "EngineHost", grace_s: float) -> None:
    """Called before the host can be found: from its first moment on, SIGTERM ends it in good form."""
    import asyncio  # noqa: PLC0415  # as above
    import signal  # noqa: PLC0415

    signals = 0
    loop, main_task = asyncio.get_running_loop(), asyncio.current_task()
    assert main_task is not None

    def stop(number: int) -> None:
        nonlocal signals
        signals += 1
        logging.getLogger("gatewright.host").info("%s: shutting down", signal.Signals(number).name)
        if host.is_running:
            host.request_shutdown(force=signals > 1, grace_s=grace_s)
        else:
            main_task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)


async def _serve(host: "EngineHost") -> None:
    logger = logging.getLogger("gatewright.host")
    logger.info("engine host started: pid %d, state directory %s", os.getpid(), host.state.path)
    reason = await host.wait_exit()
    logger.info("engine host ends: %s", reason)


if __name__ == "__main__":
    sys.exit(main())
