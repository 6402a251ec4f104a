"""benchmarks/complexity.py: its measures are right, it reads files of strangers, and it runs."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.outcome_tables import Columns, Row, TableError, read_tables, synthetic_rows
from benchmarks.routing_measures import Ranking, measure, measure_chance
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

ROOT = Path(__file__).parents[2]

prompts = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), min_size=2, max_size=30)


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "benchmarks/complexity.py", *arguments]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def ones(count: int) -> np.ndarray:
    return np.ones(count)


# --- measures


@given(prompts)
def test_auroc_is_scikit_learn_s(rows):
    scores, failed = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    found = Ranking(scores).auroc(failed, ones(len(rows)))
    if failed.all() or not failed.any():
        assert np.isnan(found)
    else:
        assert found == pytest.approx(roc_auc_score(failed, scores))


@given(prompts, st.data())
def test_a_prompt_that_counts_twice_is_two_prompts(rows, data):
    times = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    scores, failed, good = (np.array(column) for column in zip(*rows, strict=True))
    gains = good.astype(float) - ~failed
    again = np.repeat(np.arange(len(rows)), times)
    weighted, repeated = Ranking(scores), Ranking(scores[again])
    assert weighted.auroc(failed, np.array(times, float)) == pytest.approx(
        repeated.auroc(failed[again], ones(len(again))) if len(again) else float("nan"), nan_ok=True
    )
    if len(again):
        assert weighted.apgr(gains, np.array(times, float)) == pytest.approx(
            repeated.apgr(gains[again], ones(len(again))), nan_ok=True
        )


def test_apgr_of_the_best_of_the_worst_and_of_no_order():
    gains = np.array([1.0] * 20 + [0.0] * 80)
    assert Ranking(gains).apgr(gains, ones(100)) == pytest.approx(0.9)
    assert Ranking(-gains).apgr(gains, ones(100)) == pytest.approx(0.1)
    assert Ranking(np.zeros(100)).apgr(gains, ones(100)) == pytest.approx(0.5)


def test_without_a_gap_there_is_no_apgr():
    assert np.isnan(Ranking(np.arange(3)).apgr(np.zeros(3), ones(3)))


def test_intervals_hold_the_figure_and_chance_gives_a_half():
    chance = np.random.default_rng(1)
    scores = chance.normal(size=500)
    failed = chance.random(500) < 1 / (1 + np.exp(-scores))
    gains = failed * (chance.random(500) < 0.8) * 1.0
    told = measure(scores, scores, failed, gains, rounds=200)
    assert all(one.low < one.value < one.high for one in told)
    assert all(one.low > 0.5 for one in told)
    assert all(one.low < 0.5 < one.high for one in measure_chance(scores, failed, gains, rounds=200))
    noise = measure(chance.normal(size=500), scores, failed, gains, rounds=200)
    assert told[0].exceeds(noise[0])
    assert not noise[0].exceeds(told[0])


# --- files


def write_csv(path: Path, header: list[str], *rows: list[object]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([header, *rows])
    return path


def read(path: Path, **columns: object) -> list[Row]:
    return read_tables([path], Columns(**columns))  # type: ignore[arg-type]


def test_our_own_layout(tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(
        '{"prompt": "a", "task": "t", "outcomes": {"small": 0, "large": {"score": 1, "cost": 0.002}}}\n\n'
        '{"prompt": "b", "outcomes": {"small": true, "large": {"success": false}}}\n'
    )
    first, second = read(path)
    assert (first.prompt, first.task, first.scores, first.costs_usd) == (
        "a",
        "t",
        {"small": 0, "large": 1},
        {"large": 0.002},
    )
    assert second.scores == {"small": 1, "large": 0}


def test_a_column_for_each_model_with_costs_as_routerbench_has_it(tmp_path):
    header = ["sample_id", "prompt", "eval_name", "org/small", "large", "large|model_response"]
    header += ["org/small|total_cost", "large|total_cost", "oracle_model_to_route_to"]
    path = write_csv(
        tmp_path / "bench.csv",
        header,
        ["x.1", "['What is this?']", "x", 0.0, 0.25, "['C']", 1e-5, 1e-3, "large"],
    )
    (row,) = read(path)
    assert (row.prompt, row.task) == ("What is this?", "x")
    assert row.scores == {"org/small": 0.0, "large": 0.25}
    assert row.costs_usd == {"org/small": 1e-5, "large": 1e-3}


def test_a_column_for_each_model_with_truths_as_routellm_has_it(tmp_path):
    path = write_csv(
        tmp_path / "mmlu.csv",
        ["", "prompt", "small/v0.1", "large-preview"],
        [0, "1 + 1?", "True", "True"],
        [1, "1 - 1?", "False", "True"],
    )
    assert [row.scores for row in read(path)] == [
        {"small/v0.1": 1, "large-preview": 1},
        {"small/v0.1": 0, "large-preview": 1},
    ]


def test_a_row_for_each_prompt_and_model(tmp_path):
    path = write_csv(
        tmp_path / "long.csv",
        ["question", "llm", "ok", "usd"],
        ["a", "small", 0, 0.1],
        ["a", "large", 1, 0.2],
        ["b", "small", 1, ""],
    )
    first, second = read(path, model="llm", score="ok", cost="usd")
    assert (first.scores, first.costs_usd) == ({"small": 0, "large": 1}, {"small": 0.1, "large": 0.2})
    assert (second.scores, second.costs_usd) == ({"small": 1}, {})


def test_columns_that_are_no_scores_are_no_models(tmp_path):
    path = write_csv(
        tmp_path / "t.csv",
        ["id", "prompt", "reference", "words", "small", "large"],
        [1, "a", "1", 17, 0, 1],
        [0, "b", "0", 12, "", 1],
    )
    assert [row.scores for row in read(path)] == [{"small": 0, "large": 1}, {"large": 1}]
    assert read(path, models=("words", "large"))[0].scores == {"words": 17, "large": 1}


def test_a_directory_stands_for_its_files_and_json_is_read_too(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.json").write_text('[{"prompt": "a", "s": 0, "l": 1}]')
    (tmp_path / "two.jsonl").write_text('{"prompt": ["b", "c"], "s": 1, "l": 1}')
    (tmp_path / "notes.txt").write_text("nothing")
    assert sorted(row.prompt for row in read(tmp_path)) == ["a", "b\nc"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.pkl", "", "pandas.read_pickle"),
        ("a.csv", "", "no rows"),
        ("a.csv", "x,y\n1,2\n", "--prompt-column"),
        ("a.csv", "prompt,y\nq,1\n", "--models"),
        ("a.jsonl", "{broken", "a.jsonl"),
        ("a.jsonl", "[1]", "each row must be an object"),
        ("a.json", "3", "list of objects"),
        ("absent.csv", None, "absent.csv"),
    ],
)
def test_a_file_that_cannot_be_read_is_reported_with_what_to_do(tmp_path, name, text, says):
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(TableError, match=says):
        read(path)


# --- the program


def write_rows(path: Path, rows: list[Row]) -> None:
    path.write_text(
        "".join(json.dumps({"prompt": row.prompt, "outcomes": row.scores}) + "\n" for row in rows),
        encoding="utf-8",
    )


def test_it_runs_on_a_small_table(tmp_path):
    write_rows(tmp_path / "rows.jsonl", synthetic_rows(400, seed=5))
    done = benchmark(str(tmp_path / "rows.jsonl"), "--rounds", "200", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["prompts"], report["weak"]["name"], report["strong"]["name"]) == (400, "weak", "strong")
    results = report["results"]
    assert {"prompt length", "heuristic", "learned, 5 folds", "shuffled control"} <= set(results)
    for measured in results["shuffled control"].values():
        assert measured["low"] < 0.5 < measured["high"]
    for pair in results.values():
        assert all(0 <= one["low"] <= one["high"] for one in pair.values())
    assert results["learned, 5 folds"]["auroc"]["low"] > 0.5


def test_it_says_no_more_than_it_has_found(tmp_path):
    rows = synthetic_rows(300, seed=6)
    shuffled = [Row(prompt=f"{place % 97:05}", scores=row.scores) for place, row in enumerate(rows)]
    write_rows(tmp_path / "rows.jsonl", shuffled)
    done = benchmark(str(tmp_path / "rows.jsonl"), "--rounds", "200")
    assert done.returncode == 0, done.stderr
    assert "- heuristic: not shown to be better than chance" in done.stdout
    assert "- learned, 5 folds: not shown to be better than chance" in done.stdout


def test_it_measures_a_function_of_yours(tmp_path, monkeypatch):
    (tmp_path / "by_length.py").write_text(
        "def estimate(task, inputs): return min(1, len(inputs['prompt']) / 1000)"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    arguments = ("--synthetic", "200", "--rounds", "50", "--function")
    done = benchmark(*arguments, "by_length:estimate")
    assert done.returncode == 0, done.stderr
    assert "| custom by_length:estimate |" in done.stdout
    wrong = benchmark(*arguments, "by_length:absent")
    assert wrong.returncode == 2
    assert "by_length has no absent" in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--synthetic", "50", "--weak", "nobody"], "There is no model 'nobody'; there are: strong, weak"),
        (["--synthetic", "50", "--weak", "strong", "--strong", "weak"], "no gap to recover"),
        (["/nowhere/at/all.csv"], "/nowhere/at/all.csv"),
        ([], "name either DATA or --synthetic N"),
    ],
)
def test_wrong_use_is_reported_in_one_line(arguments, says):
    done = benchmark(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
