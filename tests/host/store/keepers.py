"""A keeper for a test, and what it has told."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gatewright.accounting.outcomes import Feedback
from gatewright.config import Config
from gatewright.events import (
    GatewayEvent,
    OutcomesLearnt,
)
from gatewright.route_config import RegistryConfig, StoreConfig
from gatewright_host.state_dir import StateDir
from gatewright_host.store import Keeper
from gatewright_host.store.sharing import Pace

PATIENCE_S = 30.0
QUICK = Pace(batch_s=0.01, money_s=0.001, look_s=0.05, budgets_s=0.1, heartbeat_s=0.2, retry_s=0.05)
UNREACHABLE = "postgresql://nobody@127.0.0.1:1/none"


def config_of(url: str | None = None, **fields: object) -> Config:
    # For `test_store_registry.MODEL`.
    registry = RegistryConfig(api_key_env=(("ACME_API_KEY", "https://llm.example.com"),))
    return Config(models=(), store=StoreConfig(url=url, **fields), registry=registry)  # type: ignore[arg-type]


class Told:
    """What a keeper has submitted."""

    def __init__(self) -> None:
        self.events: list[GatewayEvent] = []
        self.configs: list[Config] = []

    def outcomes(self) -> list[str]:
        return [
            outcome.request_id
            for event in self.events
            if isinstance(event, OutcomesLearnt)
            for outcome in event.outcomes
        ]

    def feedback(self) -> list[Feedback]:
        return [said for event in self.events if isinstance(event, OutcomesLearnt) for said in event.feedback]


@contextmanager
def keeping(
    state: StateDir, config: Config | None = None, pace: Pace = QUICK, *, ready: bool = True
) -> Iterator[tuple[Keeper, Told]]:
    told = Told()
    keeper = Keeper(
        config or config_of(), state, told.events.append, on_config=told.configs.append, pace=pace
    )
    keeper.start()
    try:
        assert not ready or keeper.wait_ready(PATIENCE_S)
        yield keeper, told
    finally:
        keeper.close()


def until(happened: Callable[[], object]) -> None:
    give_up_at = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
