"""gw-cli with three remote models, a route with an experiment, and a month of traffic in its store."""

import time
from typing import Final

from gatewright_host.state_dir import StateDir
from gatewright_host.store.store import Store
from tests.cli.conftest import InProcess
from tests.support.stored import fill_store

MODELS: Final = (
    (
        '{ name = "small", engine = "openai", connect = "http://127.0.0.1:1", context = 32768, '
        'input_per_million = 0.1, output_per_million = 0.2, quality = 0.6, capabilities = { "chat" } }'
    ),
    (
        '{ name = "medium", engine = "openai", connect = "http://127.0.0.1:1", context = 65536, aliases = { "mid" }, '
        'input_per_million = 0.5, output_per_million = 1.5, quality = 0.75, capabilities = { "chat", "code" } }'
    ),
    (
        '{ name = "large", engine = "openai", connect = "http://127.0.0.1:1", context = 131072, '
        'input_per_million = 3, output_per_million = 15, quality = 0.9, capabilities = { "chat", "code", "reasoning" } }'
    ),
)

ROUTES: Final = """
routes = {
  auto = {
    candidates = { "small", "medium", "large" },
    transform = { system_prefix = "You work for us." },
    experiment = { name = "words", arms = {
      { name = "control", share = 0.5 },
      { name = "terse", share = 0.5, transform = { system_prefix = "Be brief." } } } },
  },
}
budgets = { { name = "monthly", limit = 10 } }
"""


def configure(runner: InProcess, routes: str = ROUTES) -> None:
    """Write the configuration."""
    path = runner.write_config(*MODELS)
    path.write_text(path.read_text() + routes)


def open_store(runner: InProcess) -> Store:
    """The store that the commands use, made if need be."""
    return Store.open(f"sqlite:///{StateDir.at(runner.directory / 'state').store_file}")


def fill(runner: InProcess, requests: int = 400) -> None:
    """Put traffic into the store."""
    with open_store(runner) as store:
        fill_store(store, time.time(), requests=requests)
