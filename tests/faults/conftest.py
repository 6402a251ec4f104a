"""One gateway for each file of tests and each transport."""

from collections.abc import Iterator

import pytest

from tests.faults.world import TRANSPORTS, World, running


@pytest.fixture(scope="module", params=list(TRANSPORTS))
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A gateway with the `KINDS` of models that the file names, and those of its function `models`."""
    kinds = request.module.KINDS
    models = getattr(request.module, "models", lambda _: [])
    with running(request.param, kinds, models) as found:
        items = [item for item in request.session.items if isinstance(item, pytest.Function)]
        found.begin_stories(
            item.obj
            for item in items
            if item.module is request.module
            and "world" in item.fixturenames
            and item.callspec.params["world"] == request.param
        )
        yield found
        found.assert_nothing_is_left()


@pytest.fixture(params=[False, True], ids=["whole", "streamed"])
def stream(request: pytest.FixtureRequest) -> bool:
    """Whether the answer is asked for in a stream."""
    return bool(request.param)
