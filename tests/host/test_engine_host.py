import asyncio
import os
import socket
from pathlib import Path

import pytest

from gatewright.events import LeaseAsked
from gatewright.leases import LeaseGranted, LeaseLost, LeaseNews, LeaseRefused, ReleaseLease
from gatewright.tracing.replay import replay
from gatewright.tracing.trace import TraceLine, read_line, write_line
from gatewright_host import engine_host
from gatewright_host.driving import make_chance
from gatewright_host.engine_host import EngineHost, HostRunning
from gatewright_host.host_lock import Announcement, read_announcement
from gatewright_host.process_group import living_members
from gatewright_host.records import Records
from gatewright_host.state_dir import StateDir
from tests.host.conftest import Run
from tests.support.host import News, ask, fake_spec, is_running, until


def left_behind(state: StateDir) -> list[str]:
    """Files of a host that has ended, logs apart."""
    found = [str(path.relative_to(state.path)) for path in state.path.rglob("*")]
    return sorted(set(found) - {"engines", "engines.log", "host.lock", "host.log"})


def pid_of(host: EngineHost) -> int:
    (pid,) = [report.pid for report in host.status().engines if report.pid is not None]
    return pid


def test_a_lease_starts_an_engine_and_the_end_stops_it(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            link = host.attach(news)
            link.send(ask(1))
            granted = await news.end()
            assert isinstance(granted, LeaseGranted)
            status = host.status()
            (report,) = status.engines
            assert (status.pid, status.holders, status.detached) == (os.getpid(), 1, False)
            assert (report.engine.state, report.engine.leases) == ("ready", 1)
            assert report.pid is not None
            assert report.memory_bytes is not None
            assert report.memory_bytes > 1_000_000
            _, writer = await asyncio.open_connection("127.0.0.1", int(granted.base_url.rpartition(":")[2]))
            writer.close()
            link.close()
            link.close()
        assert not is_running(report.pid)
        assert left_behind(state) == []
        assert "listening on" in state.engines_log.read_text()

    run(main())


def test_a_ready_engine_is_granted_before_send_returns(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            link = host.attach(news)
            link.send(ask(1))
            await news.end()
            for number in range(2, 50):
                link.send(ask(number))
                assert isinstance(news.ends[-1], LeaseGranted)
                assert news.ends[-1].lease_id == number
                link.send(ReleaseLease(lease_id=ask(number).lease_id))

    run(main())


def test_a_holder_may_send_out_of_its_news(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            heard: list[LeaseNews] = []

            def deliver(news: LeaseNews) -> None:
                heard.append(news)
                if isinstance(news, LeaseGranted) and news.lease_id < 5:
                    link.send(ReleaseLease(lease_id=news.lease_id))
                    link.send(ask(news.lease_id + 1))

            link = host.attach(deliver)
            link.send(ask(1))
            await until(lambda: isinstance(heard[-1], LeaseGranted) and heard[-1].lease_id == 5)
            assert host.status().engines[0].engine.leases == 1

    run(main())


def test_a_holder_that_goes_frees_its_leases(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            first, second = News(), News()
            link, other = host.attach(first), host.attach(second)
            for number in (1, 2):
                link.send(ask(number))
            await first.end(2)
            other.send(ask(1))
            await asyncio.sleep(0.02)
            assert second.ends == []
            link.close()
            assert isinstance(await second.end(), LeaseGranted)

    run(main())


def test_there_is_one_host(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state):
            with pytest.raises(HostRunning):
                async with EngineHost(state):
                    pass
        async with EngineHost(state):
            pass

    run(main())


def test_a_failed_start_leaves_nothing_and_lets_others_try(
    run: Run, state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: StateDir) -> Path:
        return state.path / "absent" / "socket"

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(StateDir, "choose_socket", refuse)
            with pytest.raises(OSError, match=r"."):
                async with EngineHost(state):
                    pass
        async with EngineHost(state):
            pass

    run(main())


def test_a_stale_socket_is_replaced(run: Run, state: StateDir) -> None:
    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(state.choose_socket()))
        async with EngineHost(state):
            announcement = read_announcement(state.lock_file)
            assert announcement == Announcement(os.getpid(), str(state.choose_socket()))
            assert state.choose_socket().stat().st_mode & 0o777 == 0o600
        assert not state.choose_socket().exists()

    run(main())


def test_orphans_are_swept_first(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            link = host.attach(News())
            link.send(ask(1))
            pid = pid_of(host)
            process = host.driver.processes.popitem()[1]  # forgotten, as by a host that was killed
            host.driver.close()
        assert is_running(pid)
        assert len(Records(state.records_dir).all()) == 1
        async with EngineHost(state):
            assert not is_running(pid)
            assert Records(state.records_dir).all() == []
        process.kill_and_forget()

    run(main())


@pytest.mark.parametrize("force", [False, True])
def test_shutdown_refuses_takes_back_and_ends(run: Run, state: StateDir, force: bool) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            link = host.attach(news)
            for number in (1, 2, 3):
                link.send(ask(number))
            await news.end(2)
            pid = pid_of(host)
            await host.shutdown(force=force)
            assert not is_running(pid)
            kinds = {type(found): found for found in news.ends[2:]}
            assert set(kinds) == {LeaseLost, LeaseRefused}
            assert await host.wait_exit() == "shut down"
            await host.shutdown()
            link.send(ask(4))
            assert isinstance(news.ends[-1], LeaseRefused)

    run(main())


def test_a_deaf_engine_is_killed_in_time(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            host.attach(news).send(ask(1, fake_spec("deaf", stop_s=0.2)))
            await news.end()
            pid = pid_of(host)
        assert not is_running(pid)

    run(main())


def test_a_second_shutdown_by_force_hastens_the_first(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            host.attach(news).send(ask(1, fake_spec("deaf", stop_s=600)))
            await news.end()
            host.request_shutdown()
            await asyncio.sleep(0.02)
            assert living_members(pid_of(host))
            host.request_shutdown(force=True)
            await host.wait_exit()

    run(main())


def test_an_exception_ends_it_by_force(run: Run, state: StateDir) -> None:
    async def main() -> None:
        pids = []

        async def fail() -> None:
            async with EngineHost(state) as host:
                news = News()
                host.attach(news).send(ask(1, fake_spec("deaf", stop_s=600)))
                await news.end()
                pids.append(pid_of(host))
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert not is_running(pids[0])
        assert left_behind(state) == []

    run(main())


def test_cancellation_while_ending_leaves_nothing(run: Run, state: StateDir) -> None:
    async def main() -> None:
        pids = []

        async def serve() -> None:
            async with EngineHost(state) as host:
                news = News()
                host.attach(news).send(ask(1, fake_spec("deaf", stop_s=600)))
                await news.end()
                pids.append(pid_of(host))

        task = asyncio.create_task(serve())
        await until(lambda: pids)
        await asyncio.sleep(0.02)
        assert is_running(pids[0])  # it is told to end, and does not listen
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not is_running(pids[0])
        assert left_behind(state) == []

    run(main())


def test_an_engine_that_resists_sigkill_is_left_in_the_end(
    run: Run, state: StateDir, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_host, "FORCED_END_TIMEOUT_S", 0.1)

    async def main() -> None:
        async def fail() -> None:
            async with EngineHost(state) as host:
                host.attach(News()).send(ask(1))
                for process in host.driver.processes.values():
                    monkeypatch.setattr(process, "_check_group", lambda _: None)
                raise LookupError

        with pytest.raises(LookupError):
            await fail()
        assert "did not end" in caplog.text

    run(main())


def test_stopped_engines_start_again_for_the_next(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            link = host.attach(news)
            link.send(ask(1))
            await news.end()
            first = pid_of(host)
            host.stop_engines("other", force=True)
            assert is_running(first)
            host.stop_engines(force=True)
            assert isinstance(await news.end(2), LeaseLost)
            link.send(ask(2))
            assert isinstance(await news.end(3), LeaseGranted)
            assert pid_of(host) != first

    run(main())


def test_engines_that_a_new_configuration_does_not_name_end(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            link = host.attach(news)
            link.send(ask(1))
            await news.end()
            pid = pid_of(host)
            link.replace_specs((fake_spec(),), ())
            link.send(ReleaseLease(lease_id=ask(1).lease_id))
            await until(lambda: not is_running(pid))

    run(main())


def test_it_wants_to_exit_when_nobody_needs_it(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state, linger_s=0.05) as host:
            assert host.is_detached
            link = host.attach(News())
            await asyncio.sleep(0.1)
            assert not host.driver.exit_reason.done()
            link.close()
            assert "nobody attached" in await host.wait_exit()

    run(main())


def test_a_recorded_trace_replays_equal(run: Run, state: StateDir) -> None:
    async def main() -> None:
        lines: list[TraceLine] = []
        async with EngineHost(state, trace=lines.append) as host:
            news = News()
            link = host.attach(news)
            small, large = fake_spec(), fake_spec(context=4096)
            link.send(ask(1, small))
            await news.end()
            link.send(ask(2, large))
            link.send(ReleaseLease(lease_id=ask(1).lease_id))
            await news.end(2)
        assert any(isinstance(line.event, LeaseAsked) for line in lines)
        again = [read_line(write_line(line)) for line in lines]
        steps = list(replay(again, make_chance))
        assert len(steps) == len(lines) - 1
        assert not any(step.differs for step in steps)

    run(main())


def test_wrong_use_raises(state: StateDir) -> None:
    with pytest.raises(AssertionError, match="not running"):
        EngineHost(state).status()
