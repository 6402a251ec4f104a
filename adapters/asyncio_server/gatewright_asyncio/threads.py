"""Threads for calls that block, in pools that cannot starve each other.

The event loop's own pool has few threads, and looking up names needs them too. Were estimators to wait in it for answers
of models, the calls of these models could not even look up where to connect, and all would wait for each other.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

RESERVING: Final = ThreadPoolExecutor(64, "gatewright-reserving")
"""Waits for the store, for no longer than a reservation may take."""
ESTIMATING: Final = ThreadPoolExecutor(64, "gatewright-estimating")
"""Waits for estimators: functions, and models that reserve and call in their turn."""
ASKED_BY_ALL: Final = ThreadPoolExecutor(16, "gatewright-asked")
"""The part of the management API that needs no rights: whoever keeps it busy must keep no operator out."""
MANAGING: Final = ThreadPoolExecutor(4, "gatewright-management")
"""The rest of it; few, since each may hold a connection to the store for the time of a long report."""


async def run_in(
    pool: ThreadPoolExecutor,
    function: Callable[Arguments, Result],
    /,
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Result:
    """Call a function in a thread of a pool, and wait for it."""
    return await asyncio.get_running_loop().run_in_executor(pool, partial(function, *args, **kwargs))
