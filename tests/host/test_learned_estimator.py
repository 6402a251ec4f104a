"""The estimator that learned from outcomes: what it learns, keeps, and does without."""

import logging
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from gatewright.api.facts import ApiFormat, RequestFacts
from gatewright.commands import EstimateComplexity
from gatewright.events import ComplexityEstimated, EstimationFailed
from gatewright.ids import CommandId, RequestId
from gatewright.route_config import EstimatorConfig, EstimatorKind
from gatewright_host.estimators import Estimators, LearnedEstimator
from gatewright_host.estimators import learned as learned_module
from gatewright_host.estimators.custom import EstimatorError
from gatewright_host.estimators.learned import FILE_NAME

CANDIDATES = ("weak", "strong")
HARD, EASY = "Prove the theorem about rings", "Translate the greeting to French"


def outcomes(count: int, seed: int = 0) -> list[tuple[str, str, bool]]:
    """The strong model does everything, the weak one what is easy; one outcome in ten is chance."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        hard, model = chance.random() < 0.5, chance.choice(CANDIDATES)
        usual = model == "strong" or not hard
        success = usual if chance.random() < 0.9 else chance.random() < 0.5
        found.append((model, f"{HARD if hard else EASY} {chance.randint(0, 999)}", success))
    return found


def teach(estimator: LearnedEstimator | Estimators, count: int, seed: int = 0) -> None:
    for model, text, success in outcomes(count, seed):
        estimator.learn(model, text, success)


def test_it_learns_who_can_do_what():
    learned = LearnedEstimator()
    teach(learned, 400)
    hard, easy = learned.predict(CANDIDATES, HARD), learned.predict(CANDIDATES, EASY)
    assert hard.chances["weak"] < 0.3
    assert hard.chances["strong"] > 0.7
    assert easy.chances["weak"] > 0.7
    assert hard.estimate.complexity.level > easy.estimate.complexity.level
    assert hard.estimate.score == pytest.approx(1 - sum(hard.chances.values()) / 2)
    assert hard.estimate.estimator == "learned"


def ask(model: str, body: bytes, timeout_s: float) -> str:
    raise AssertionError("nobody is to be asked")


def test_it_tells_chances_by_way_of_the_command():
    estimators = Estimators()
    facts = RequestFacts(path="/v1/chat/completions", format=ApiFormat.CHAT)
    config = EstimatorConfig(kind=EstimatorKind.LEARNED, timeout_s=60.0, min_outcomes=200)
    command = EstimateComplexity(
        command_id=CommandId(7), request_id=RequestId("r"), estimator=config, candidates=CANDIDATES
    )
    early = estimators.estimate(command, facts, HARD, ask)
    assert early == EstimationFailed(
        command_id=CommandId(7), reason="only 0 of 200 outcomes were learned so far"
    )
    teach(estimators, 240)
    told = estimators.estimate(command, facts, HARD, ask)
    assert isinstance(told, ComplexityEstimated)
    assert set(told.chances) == set(CANDIDATES)
    assert told.chances["weak"] < told.chances["strong"]


def test_the_task_s_name_is_learned_too():
    learned = LearnedEstimator()
    for number in range(200):
        learned.learn("weak", f"Do {number}", number % 2 == 0, task="easy one" if number % 2 == 0 else "bad")
    easy, bad = (
        learned.predict(("weak",), "Do 5", task=task).chances["weak"] for task in ("easy one", "bad")
    )
    assert easy > bad + 0.3


def test_with_too_few_outcomes_it_says_so():
    learned = LearnedEstimator()
    with pytest.raises(EstimatorError, match="only 0 of 20"):
        learned.predict(CANDIDATES, HARD, min_outcomes=20)
    teach(learned, 40)
    with pytest.raises(EstimatorError, match="only 40 of 50"):
        learned.predict(CANDIDATES, HARD, min_outcomes=50)
    with pytest.raises(EstimatorError, match="none of the candidates"):
        learned.predict(("unknown",), HARD)
    assert set(learned.predict((*CANDIDATES, "unknown"), HARD).chances) == set(CANDIDATES)


def test_nobody_is_ever_sure():
    learned = LearnedEstimator()
    for _ in range(3000):
        learned.learn("strong", EASY, success=True)
        learned.learn("weak", HARD, success=False)
    assert learned.predict(("strong",), EASY).chances["strong"] == 0.98
    assert learned.predict(("weak",), HARD).chances["weak"] == 0.02


def test_the_same_outcomes_teach_the_same():
    first, second = LearnedEstimator(), LearnedEstimator()
    for learned in (first, second):
        teach(learned, 100)
    assert first.predict(CANDIDATES, HARD) == second.predict(CANDIDATES, HARD)


def test_what_was_learned_outlives_the_process(tmp_path):
    before = LearnedEstimator(tmp_path)
    teach(before, 100)
    before.close()
    after = LearnedEstimator(tmp_path)
    assert after.outcomes == 100
    known, restored = (one.predict(CANDIDATES, HARD).chances for one in (before, after))
    assert restored == pytest.approx(known, abs=1e-4)
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert (tmp_path / FILE_NAME).stat().st_size < 1_000_000


def test_it_is_saved_by_itself(tmp_path):
    learned = LearnedEstimator(tmp_path)
    assert learned.outcomes == 0  # waits for the library
    teach(learned, 64)
    assert LearnedEstimator(tmp_path).outcomes == 64


def test_it_is_saved_by_itself_where_each_request_asks_it_first(tmp_path):
    learned = LearnedEstimator(tmp_path)
    assert learned.outcomes == 0  # waits for the library
    for model, text, success in outcomes(130):
        with suppress(EstimatorError):  # too few at first
            learned.predict(CANDIDATES, text)
        learned.learn(model, text, success)
    assert LearnedEstimator(tmp_path).outcomes == 128


def test_a_few_outcomes_are_saved_after_a_while(tmp_path, monkeypatch):
    learned = LearnedEstimator(tmp_path)
    assert learned.outcomes == 0
    monkeypatch.setattr(learned_module, "_SAVE_AFTER_S", 0.0)
    teach(learned, 16)
    assert LearnedEstimator(tmp_path).outcomes == 16


def test_feedback_counts_instead_of_what_was_believed(tmp_path):
    learned, other = LearnedEstimator(tmp_path), LearnedEstimator(tmp_path)
    assert (learned.outcomes, other.outcomes) == (0, 0)
    for number, (model, text, success) in enumerate(outcomes(200)):
        with suppress(EstimatorError):
            learned.predict(CANDIDATES, text)
        if number % 3 == 0:  # it is faster than the outcome
            learned.take_feedback(f"r{number}", success)
        learned.learn(model, text, success=True, request_id=f"r{number}")
        learned.take_feedback(f"r{number}", success)
        learned.take_feedback(f"r{number}", success)
        learned.take_feedback(f"of others {number}", success=False)
    told = learned.predict(CANDIDATES, HARD).chances
    assert told["weak"] < 0.35
    assert told["strong"] > 0.75
    assert learned.predict(CANDIDATES, EASY).chances["weak"] > 0.75
    learned.close()
    assert other.predict(CANDIDATES, HARD).chances == pytest.approx(told, abs=0.02)
    assert other.outcomes == 200, "each counts once"


def test_feedback_that_comes_much_later_turns_what_was_learned():
    learned = LearnedEstimator()
    told = outcomes(300)
    for number, (model, text, _) in enumerate(told):
        learned.learn(model, text, success=True, request_id=f"r{number}")
    assert learned.predict(CANDIDATES, HARD).chances["weak"] > 0.9
    for number, (_, _, success) in enumerate(told):
        learned.take_feedback(f"r{number}", success)
    chances = learned.predict(CANDIDATES, HARD).chances
    assert chances["weak"] < chances["strong"] - 0.2


def test_a_new_candidate_is_known_soon_however_much_was_learned_of_others():
    learned = LearnedEstimator()
    chance = random.Random(1)
    for number in range(1000):
        learned.learn("weak", f"{HARD} {chance.randint(0, 999)}", success=number % 20 == 0)
    for _ in range(100):
        learned.learn("new", f"{HARD} {chance.randint(0, 999)}", success=True)
    chances = learned.predict(("weak", "new"), HARD).chances
    assert chances["weak"] < 0.2
    assert chances["new"] > chances["weak"] + 0.3


def test_what_several_processes_learned_is_worth_as_much_as_what_one_did(tmp_path):
    alone, *several = LearnedEstimator(), LearnedEstimator(tmp_path), LearnedEstimator(tmp_path)
    assert [each.outcomes for each in several] == [0, 0]  # waits for the library
    for number, (model, text, success) in enumerate(outcomes(600)):
        alone.learn(model, text, success)
        several[number % 2].learn(model, text, success)
    usual = alone.predict(CANDIDATES, HARD).chances
    for each in several:
        assert each.predict(CANDIDATES, HARD).chances == pytest.approx(usual, abs=0.02)
        each.close()
    assert LearnedEstimator(tmp_path).predict(CANDIDATES, HARD).chances == pytest.approx(usual, abs=0.02)


def test_processes_that_learn_into_one_directory_lose_nothing(tmp_path):
    first, second = LearnedEstimator(tmp_path), LearnedEstimator(tmp_path)
    assert first.outcomes == second.outcomes == 0
    teach(first, 50, seed=1)
    teach(second, 60, seed=2)
    first.close()
    second.close()
    assert (first.outcomes, second.outcomes) == (110, 110)
    teach(first, 7, seed=3)
    first.close()
    assert second.outcomes == 117


def test_what_waits_for_the_library_is_not_lost():
    learned = LearnedEstimator()
    learned.learn("weak", HARD, success=False)
    assert learned.outcomes == 1


def damage(path: Path, how: str) -> None:
    match how:
        case "garbage":
            path.write_bytes(b"PK\x03\x04 nothing of the kind")
        case "empty":
            path.write_bytes(b"")
        case "cut":
            path.write_bytes(path.read_bytes()[:-2000])
        case "flipped":
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 0xFF
            path.write_bytes(bytes(data))
        case "huge":
            path.write_bytes(b"\0" * 4_000_001)
        case _:
            with np.load(path) as arrays:
                changed = dict(arrays)
            match how:
                case "version":
                    changed["version"] = np.array(99)
                case "missing":
                    del changed["intercepts"]
                case "shape":
                    changed["weights"] = np.zeros((2, 3), np.float32)
                case "nan":
                    changed["weights"][0, 0] = np.nan
                case "pickle":
                    changed["names"] = np.array([print, len], dtype=object)
            np.savez(path, **changed)


@pytest.mark.parametrize(
    "how", ["garbage", "empty", "cut", "flipped", "huge", "version", "missing", "shape", "nan", "pickle"]
)
def test_a_damaged_file_is_reported_and_learning_starts_anew(tmp_path, caplog, how):
    learned = LearnedEstimator(tmp_path)
    teach(learned, 40)
    learned.close()
    damage(tmp_path / FILE_NAME, how)
    with caplog.at_level(logging.WARNING):
        again = LearnedEstimator(tmp_path)
        assert again.outcomes == 0
    assert FILE_NAME in caplog.text
    teach(again, 40)
    again.close()
    assert LearnedEstimator(tmp_path).outcomes == 40


def test_a_directory_that_cannot_be_written_stops_no_learning(tmp_path, caplog):
    learned = LearnedEstimator(tmp_path / "absent")
    assert learned.outcomes == 0
    with caplog.at_level(logging.WARNING):
        teach(learned, 160)
    assert caplog.text.count("cannot be written") == 1
    assert learned.outcomes == 160
    (tmp_path / "absent").mkdir()
    learned.close()
    assert LearnedEstimator(tmp_path / "absent").outcomes == 160


def test_without_the_extra_it_says_what_to_install():
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from gatewright_host.estimators import LearnedEstimator\n"
        "learned = LearnedEstimator(); learned.learn('weak', 'hi', True)\n"
        "try: learned.predict(('weak',), 'hi')\n"
        "except Exception as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert "[learned]'" in done.stdout


def test_nothing_heavy_is_imported_before_it_is_needed():
    program = "import sys, gatewright_host.estimators\nprint([m for m in ('sklearn', 'numpy', 'scipy') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_many_threads_learn_and_ask(tmp_path):
    learned = LearnedEstimator(tmp_path)
    assert learned.outcomes == 0
    begin = threading.Barrier(4)

    def work(seed: int) -> None:
        begin.wait()
        for place, (model, text, success) in enumerate(outcomes(100, seed)):
            learned.learn(model, text, success)
            if place > 60:
                assert set(learned.predict(CANDIDATES, text).chances) == set(CANDIDATES)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert learned.outcomes == 400


def test_no_text_is_kept(tmp_path):
    learned = LearnedEstimator(tmp_path)
    for _ in range(20):
        learned.learn("weak", "the password is xyzzyplugh", success=True)
    learned.close()
    with np.load(tmp_path / FILE_NAME) as arrays:
        kept = b"".join(arrays[name].tobytes() for name in arrays)
    assert b"xyzzy" not in kept
    assert "xyzzy".encode("utf-32-le") not in kept
