"""`gw-cli keys`: making keys and saying what they may do."""

import json
import time

import pytest

from gatewright.accounting.keys import hash_key
from gatewright.accounting.spending import Charge, Window, WindowKind
from gatewright.commands import Outcome, RecordRequest
from gatewright.ids import RequestId
from gatewright_host.store import Written
from tests.cli.conftest import InProcess
from tests.cli.figures import configure, open_store


def create(quick: InProcess, *args: str) -> str:
    done = quick.run("keys", "create", *args)
    assert done.code == 0, done.err
    return done.out.strip()


def test_the_secret_alone_is_on_standard_output_and_is_not_kept(quick: InProcess) -> None:
    done = quick.run("keys", "create", "ci")
    secret = done.out.removesuffix("\n")
    assert done.code == 0
    assert secret.startswith("gw-")
    assert secret not in done.err
    with open_store(quick) as store:
        (key,) = store.keys()
    assert key.hash == hash_key(secret)
    assert key.id in done.err
    shown = quick.run("keys", "list").out
    assert secret not in shown
    assert f"{key.prefix}…" in shown


def test_the_first_key_shuts_everybody_else_out_and_that_is_said(quick: InProcess) -> None:
    assert "that is the first key: nobody is let in without one now" in quick.run("keys", "create", "ci").err
    assert "first key" not in quick.run("keys", "create", "ci").err


def test_all_limits_are_kept(quick: InProcess) -> None:
    configure(quick)
    begun_s = time.time()
    create(
        quick, "ci", "--model", "small", "--model", "mid", "--route", "auto", "--requests-per-minute", "60",
        "--tokens-per-minute", "9000", "--budget", "$20.5", "--window", "rolling-day", "--expires", "90d", "--admin",
    )  # fmt: skip
    with open_store(quick) as store:
        (key,) = store.keys()
    assert (key.models, key.routes) == (frozenset({"small", "mid"}), frozenset({"auto"}))
    assert (key.requests_per_minute, key.tokens_per_minute, key.budget_usd) == (60, 9000, 20.5)
    assert key.budget_window == Window(kind=WindowKind.ROLLING, period="day")
    assert key.is_admin
    assert key.expires_s is not None
    assert 89.9 < (key.expires_s - begun_s) / 86_400 < 90.1


def test_names_that_nobody_has_are_warned_of(quick: InProcess) -> None:
    configure(quick)
    done = quick.run("keys", "create", "ci", "--model", "smal", "--route", "auto")
    assert done.code == 0
    assert "warning: there is no model 'smal' at present" in done.err
    assert "route" not in done.err


def test_set_changes_what_is_said_by_id_name_or_prefix(quick: InProcess) -> None:
    secret = create(quick, "ci", "--budget", "5", "--model", "small", "--expires", "2030-01-31")
    with open_store(quick) as store:
        (key,) = store.keys()
    assert (
        quick.run("keys", "set", "ci", "--budget", "none", "--name", "robots").out
        == f"changed {key.id} (robots)\n"
    )
    assert quick.run("keys", "set", key.id, "--model", "all").code == 0
    assert quick.run("keys", "set", secret[:9], "--expires", "none", "--admin").code == 0
    with open_store(quick) as store:
        (key,) = store.keys()
    assert (key.name, key.budget_usd, key.models, key.expires_s, key.is_admin) == (
        "robots",
        None,
        None,
        None,
        True,
    )
    assert quick.run("keys", "set", "robots", "--no-admin").code == 0
    with open_store(quick) as store:
        assert not store.keys()[0].is_admin


def test_show_tells_what_a_key_may_do(quick: InProcess) -> None:
    create(quick, "ci", "--budget", "5", "--expires", "2030-01-31")
    text = quick.run("keys", "show", "ci").out
    assert "$5.00" in text
    assert "2030-01-31 00:00" in text
    plain = json.loads(quick.run("keys", "show", "ci", "--json").out)
    assert (plain["name"], plain["budget_usd"], plain["spent_usd"]) == ("ci", 5.0, {})
    assert "hash" not in plain


def test_show_tells_what_a_key_has_spent(quick: InProcess) -> None:
    create(quick, "ci", "--budget", "5")
    with open_store(quick) as store:
        (key,) = store.keys()
        account = f"key/{key.id}"
        record = RecordRequest(
            request_id=RequestId("req_1"),
            outcome=Outcome.ANSWERED,
            path="/v1/chat/completions",
            cost_usd=1.25,
            charges=(Charge(account=account, limit_usd=5.0),),
            charged_usd={account: 1.25},
        )
        now_s = time.time()
        store.write([Written(record=record, at_s=now_s, gateway_epoch_s=now_s)])
    assert json.loads(quick.run("keys", "show", "ci", "--json").out)["spent_usd"] == {account: 1.25}
    assert f"$1.25 ({account})" in quick.run("keys", "show", "ci").out


def test_revoke_makes_a_key_worthless(quick: InProcess) -> None:
    create(quick, "ci")
    done = quick.run("keys", "revoke", "ci")
    assert done.code == 0
    assert done.out.startswith("revoked ")
    assert "everybody is let in now" in done.err
    with open_store(quick) as store:
        assert store.keys() == ()


def test_a_created_key_as_json(quick: InProcess) -> None:
    plain = json.loads(quick.run("keys", "create", "ci", "--json").out)
    assert plain["name"] == "ci"
    assert plain["secret"].startswith(plain["prefix"])


def test_keys_of_one_name_are_told_apart_by_id(quick: InProcess) -> None:
    create(quick, "ci")
    create(quick, "ci")
    done = quick.run("keys", "revoke", "ci")
    assert done.code == 2
    assert "several keys are called 'ci'" in done.err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("create", "ci", "--budget", "much"), 'gw-cli: --budget: got "much", expected'),
        (("create", "ci", "--requests-per-minute", "0"), "gw-cli: --requests-per-minute: got 0, expected"),
        (("create", "ci", "--expires", "soon"), "gw-cli: --expires: 'soon' is none of"),
        (("create", "ci", "--expires", "2020-01-01"), "gw-cli: --expires: '2020-01-01' has passed; "),
        (("create", "ci", "--expires", "0d"), "gw-cli: --expires: '0d' has passed; "),
        (("set", "ci", "--expires", "2020-01-01"), "gw-cli: --expires: '2020-01-01' has passed; "),
        (("create", ""), 'gw-cli: NAME: got "", expected'),
        (("set", "ci"), "gw-cli: nothing to change"),
        (("set", "ci", "--budget", "1"), "gw-cli: there is no key 'ci'"),
        (("show", "ci"), "gw-cli: there is no key 'ci'"),
        (("revoke", "ci"), "gw-cli: there is no key 'ci'"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(quick: InProcess, args: tuple[str, ...], said: str) -> None:
    done = quick.run("keys", *args)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(said), done.err


def test_without_keys_there_is_a_friendly_line(quick: InProcess) -> None:
    done = quick.run("keys", "list")
    assert (done.code, done.out, done.err) == (0, "", "nothing is recorded yet\n")
    assert list((quick.directory / "state").iterdir()) == []
    open_store(quick).close()
    done = quick.run("keys", "list")
    assert (done.code, done.out, done.err) == (0, "", "there are no keys: everybody is let in\n")


def test_names_of_models_do_nothing_to_the_terminal(quick: InProcess) -> None:
    quick.run("keys", "create", "odd", "--model", "a\x1b[2J")
    for command in (("keys", "list"), ("keys", "show", "odd")):
        assert r"a\x1b[2J" in quick.run(*command).out
