"""What is learnt from feedback, by all processes that share a state directory; judges and experiments."""

from collections import Counter

from gatewright_cli.verification.client import Client
from gatewright_host.store import Store
from tests.conformance.choosing import Choosing, eventually

USERS = tuple(f"user-{number}" for number in range(12))


def arm(choosing: Choosing, user: str, via: Client) -> tuple[str | None, str | None]:
    """Experiment and arm of somebody's request, and who answered."""
    answer = choosing.ask("trial", via=via, gatewright={"user": user})
    return answer.get("x-gw-experiment"), answer.get("x-gw-model")


# --- feedback


def test_failures_that_people_report_change_the_choice_in_all_processes(choosing: Choosing) -> None:
    assert [choosing.who("learning", via=client) for client in choosing.both] == ["rough", "rough"]
    told = []

    def has_learnt(client: Client) -> bool:
        """Whether the other one is asked; what the first says is called wrong, and the neighbour hears that from the store."""
        answer = choosing.ask("learning", via=client)
        if answer.get("x-gw-model") == "smooth":
            return True
        said = {"request_id": answer.get("x-request-id"), "success": False}
        choosing.manage("POST", "/api/feedback", said)
        told.append(said)
        return False

    choosing.everywhere(has_learnt)
    assert told
    record = choosing.record(choosing.ask("learning"))
    assert record["decision"]["reason"].startswith("smooth: best of 2")
    rows = choosing.manage("GET", "/api/ranking?together=true")["data"]
    rates = {row["model"]: row["success_rate"] for row in rows}
    assert rates["rough"] < rates["smooth"]


# --- judges


def test_a_judge_sees_every_answer_and_the_choice_follows_it(choosing: Choosing) -> None:
    whole = choosing.ask("judged")
    assert whole.get("x-gw-model") == "pretender"
    said = eventually(lambda: choosing.record(whole)["feedback"], "it is judged")
    assert [(each["score"], each["by"]) for each in said] == [(0, "judge")]
    headers, _ = choosing.events("judged", "and in a stream?")
    assert eventually(lambda: choosing.record(headers)["feedback"], "a stream is judged as well")
    eventually(lambda: choosing.who("judged") == "honest", "nobody asks the pretender any more")
    choosing.everywhere(lambda client: choosing.who("judged", via=client) == "honest")
    shown = choosing.provider.received("judge")[-1]["messages"][-1]["content"]
    assert "I am speaks-" in shown
    rows = choosing.manage("GET", "/api/usage?by=task,model&task=gatewright:judge")["data"]
    assert [row["model"] for row in rows] == ["judge"]


# --- experiments


def test_somebody_meets_the_same_arm_everywhere(choosing: Choosing) -> None:
    arms = {user: arm(choosing, user, choosing.client) for user in USERS}
    assert Counter(arms.values()).keys() == {("tone/formal", "formal"), ("tone/casual", "casual")}
    for client in choosing.both:
        assert {user: arm(choosing, user, client) for user in USERS} == arms
    (casual,) = choosing.provider.received("casual")[-1:]
    assert casual["messages"][0] == {"role": "system", "content": "Hey!"}
    by_openai = choosing.ask("trial", user=USERS[0])
    assert (by_openai.get("x-gw-experiment"), by_openai.get("x-gw-model")) == arms[USERS[0]]


def test_who_met_which_arm_is_written_down(choosing: Choosing) -> None:
    def requests() -> int:
        shown = choosing.manage("GET", "/api/experiments/tone")
        return sum(each["requests"] for each in shown["arms"])

    before = requests()
    answers = [choosing.ask("trial", via=client) for client in choosing.both]
    for answer in answers:
        record = eventually(lambda asked=answer: choosing.record(asked), "it is written down")
        decision = record["decision"]
        assert f"{decision['experiment']}/{decision['arm']}" == answer.get("x-gw-experiment")
        assert decision["propensity"] == 0.5
        (outcome,) = record["outcomes"]
        assert (outcome["experiment"], outcome["arm"]) == ("tone", decision["arm"])
        assert (outcome["propensity"], outcome["unit"] is not None) == (0.5, True)
    eventually(lambda: requests() >= before + 2, "the report counts them")


def test_an_arm_that_is_promoted_gets_everybody_in_all_processes(choosing: Choosing) -> None:
    arms = {user: arm(choosing, user, choosing.client) for user in USERS}
    promoted = choosing.manage("POST", "/api/experiments/tone", {"action": "promote", "arm": "casual"})
    assert promoted["name"] == "tone"
    try:
        choosing.everywhere(
            lambda client: {arm(choosing, user, client)[1] for user in USERS} == {"casual"}, choosing.both
        )
    finally:
        choosing.manage("POST", "/api/experiments/tone", {"action": "resume"})
    choosing.everywhere(
        lambda client: {user: arm(choosing, user, client) for user in USERS} == arms,
    )
    choosing.manage("POST", "/api/experiments/tone", {"action": "end"})
    try:
        choosing.everywhere(
            lambda client: choosing.ask("trial", via=client).get("x-gw-experiment") is None, choosing.both
        )
    finally:
        choosing.manage("POST", "/api/experiments/tone", {"action": "resume"})


def test_what_others_write_into_the_store_is_heard(choosing: Choosing) -> None:
    answer = choosing.ask("other-spare")
    choosing.record(answer)  # it is written by now
    with Store.open(f"sqlite:///{choosing.state.path}/gatewright.db") as store:
        found = store.find_request(answer.get("x-request-id") or "")
    assert found is not None
    assert found.record.model == "other-spare"
    assert found.prompt is None
