"""Lives of real processes under a real host: what the Fleet decides and what the adapter does about it."""

import asyncio
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
from attrs import evolve

from gatewright.errors import Problem
from gatewright.leases import LeaseGranted, LeaseLost, LeaseNews, LeaseProgress, LeaseRefused, ReleaseLease
from gatewright_host.engine_host import EngineHost
from gatewright_host.state_dir import StateDir
from tests.host.conftest import Run
from tests.support.host import News, ask, fake_spec, is_running, until


def problem_of(news: LeaseNews) -> Problem:
    assert isinstance(news, LeaseRefused | LeaseLost)
    return news.problem


async def get(base_url: str, path: str) -> None:
    """Ask for a path, and do not wait for the answer."""
    url = urlsplit(base_url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(0.2):
            await reader.read()
    writer.close()


def test_a_loading_engine_is_waited_for(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            host.attach(news).send(ask(1, fake_spec("loading", "--seconds", "1.2")))
            assert isinstance(await news.end(), LeaseGranted)
            phases = [told.phase for told in news.all if isinstance(told, LeaseProgress)]
            assert phases[0] == "starting"
            assert "loading" in phases

    run(main())


def test_an_engine_that_exits_is_explained(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            host.attach(news).send(ask(1, fake_spec("exit")))
            problem = problem_of(await news.end())
            assert problem.code == "engine_start_failed"
            assert "exit code 3: model: unable to allocate 9 GiB" in problem.message

    run(main())


def test_a_missing_program_is_explained(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news, spec = News(), fake_spec()
            assert spec.process is not None
            link = host.attach(news)
            link.send(ask(1, evolve(spec, process=evolve(spec.process, binary="llama-sevrer"))))
            assert "llama-sevrer is not on PATH" in problem_of(news.ends[0]).message  # at once

    run(main())


def test_an_engine_that_is_never_ready_is_given_up(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            host.attach(news).send(ask(1, fake_spec("never", startup_s=0.6)))
            assert problem_of(await news.end()).code == "engine_start_timeout"
            await until(lambda: host.driver.processes == {})

    run(main())


def test_an_idle_engine_is_stopped(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            link = host.attach(news)
            link.send(ask(1, fake_spec(idle_s=0.1)))
            await news.end()
            (report,) = host.status().engines
            link.send(ReleaseLease(lease_id=ask(1).lease_id))
            await until(lambda: not is_running(report.pid or 0))

    run(main())


def test_a_crash_loses_the_leases_and_the_next_gets_a_new_engine(
    run: Run, state: StateDir, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("crash") / "child"

    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            link = host.attach(news)
            spec = fake_spec("orphans", "--child-file", str(file))
            link.send(ask(1, spec))
            granted = await news.end()
            assert isinstance(granted, LeaseGranted)
            await get(granted.base_url, "/quit")
            assert problem_of(await news.end(2)).code == "engine_crashed"
            assert not is_running(int(file.read_text()))
            link.send(ask(2, spec))
            assert isinstance(await news.end(3), LeaseGranted)

    run(main())


def test_a_hung_engine_is_killed_and_started_again(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            link = host.attach(news)
            spec = fake_spec("hangs", health_check_s=0.5)
            link.send(ask(1, spec))
            granted = await news.end()
            assert isinstance(granted, LeaseGranted)
            (report,) = host.status().engines
            await get(granted.base_url, "/hang")
            link.send(ReleaseLease(lease_id=granted.lease_id, suspect=True))
            link.send(ask(2, spec))
            assert isinstance(await news.end(2), LeaseGranted)
            assert not is_running(report.pid or 0)

    run(main())


def test_engines_of_one_place_take_turns(run: Run, state: StateDir) -> None:
    async def main() -> None:
        async with EngineHost(state) as host:
            news = News()
            link = host.attach(news)
            small, large, beside = (
                fake_spec(),
                fake_spec(context=4096),
                fake_spec(model="b", place="secondary:b"),
            )
            link.send(ask(1, small))
            link.send(ask(2, large))
            link.send(ask(3, beside))
            await news.end(2)
            assert {found.lease_id for found in news.ends} == {1, 3}
            link.send(ReleaseLease(lease_id=ask(1).lease_id))
            assert (await news.end(3)).lease_id == 2
            assert len(host.driver.processes) == 2

    run(main())
