"""What `gw-cli verify` looks at, on every transport."""

import pytest
from attrs import evolve

from gatewright_cli.verification.catalogue import CHECKS
from gatewright_cli.verification.check import Check
from gatewright_cli.verification.runner import Outcome, Reception, run_checks
from tests.conformance.differences import DIFFERENCES
from tests.conformance.transports import TRANSPORTS, World

pytestmark = pytest.mark.engine

SKIPPED = {("asyncio-unix", "gw-host")}
NEEDS_TIME = {"stream-flows"}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_check(world: World, check: Check) -> None:
    probe = evolve(world.probe, model="slow") if check.name in NEEDS_TIME else world.probe
    (result,) = run_checks([check], Reception(probe, ""))
    expected = Outcome.SKIPPED if (world.transport, check.name) in SKIPPED else Outcome.PASSED
    assert result.outcome is expected, "\n".join([result.detail, *result.exchange])


def test_each_check_has_a_name_and_a_promise_of_its_own() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert len({check.promise for check in CHECKS}) == len(CHECKS)


def test_differences_are_of_transports_that_exist() -> None:
    assert {transport for transport, _ in DIFFERENCES} <= set(TRANSPORTS)
