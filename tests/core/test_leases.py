import pytest
from attrs import evolve

from gatewright.leases import LeaseEngine, LeaseGranted, granted_at_once
from tests.core.machines.build import lid, remote_spec, spec

ASKED = LeaseEngine(lease_id=lid(3), variants=(remote_spec("gpt", 8192),), last_resort=True)


def test_a_provider_that_is_called_in_any_case_needs_no_fleet():
    granted = LeaseGranted(lease_id=lid(3), context_tokens=8192, base_url="https://api.example.com")
    assert granted_at_once(ASKED) == granted


@pytest.mark.parametrize(
    "asked",
    [
        evolve(ASKED, last_resort=False),
        evolve(ASKED, variants=(remote_spec("gpt", 8192, parallel=2),)),
        evolve(ASKED, variants=(spec(parallel=None),)),
    ],
)
def test_the_fleet_decides_about_circuits_slots_and_engines(asked: LeaseEngine):
    assert granted_at_once(asked) is None
