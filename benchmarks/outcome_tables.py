"""Tables of outcomes: for each prompt, how well each model did. Read from files of several layouts, or made up.

docs/complexity.md describes the layouts.
"""

import ast
import csv
import json
import math
import random
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen

COST_SUFFIX = "|total_cost"
RESPONSE_SUFFIX = "|model_response"
PROMPT_NAMES = ("prompt", "text", "question", "instruction", "query", "input")
TASK_NAMES = ("task", "eval_name", "dataset", "category", "domain", "subject")
NO_MODELS = frozenset(
    ("", "index", "id", "idx", "sample_id", "question_id", "label", "turn", "split", "seed", "choice", "cost", "latency", "latency_ms",
     "tokens", "prompt_tokens", "completion_tokens", "oracle_model_to_route_to", "response", "reference", "answer")
)  # fmt: skip
TRUTHS = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}


class TableError(Exception):
    """The data cannot be used; the message says what to do."""


@frozen(kw_only=True)
class Columns:
    """Names of columns, where they are not to be guessed.

    Attributes:
        prompt: With the text.
        task: With the name of the task or data set.
        model: For tables with a row for each prompt and model: with the model's name.
        score: For those: with the score.
        cost: For those: with the cost.
        models: For tables with a column for each model: their names.
    """

    prompt: str | None = None
    task: str | None = None
    model: str | None = None
    score: str = "score"
    cost: str = "cost"
    models: tuple[str, ...] = ()


@frozen(kw_only=True)
class Row:
    """One prompt.

    Attributes:
        prompt: Its text.
        task: Name of the task or data set; empty where there is none.
        scores: By model; 1 is success, 0 failure, what is between is in part.
        costs_usd: By model, where they are known.
    """

    prompt: str
    scores: Mapping[str, float] = field(hash=False)
    task: str = ""
    costs_usd: Mapping[str, float] = field(factory=dict, hash=False)


def read_tables(paths: Iterable[Path], columns: Columns) -> list[Row]:
    """All rows of all files; directories stand for the files in them.

    Raises:
        TableError: A file has another layout, or none.
    """
    rows: list[Row] = []
    for path in paths:
        files = (
            sorted(found for found in path.rglob("*") if found.suffix in READERS) if path.is_dir() else [path]
        )
        if not files:
            raise TableError(f"{path}: no {', '.join(READERS)} in it")
        for file in files:
            rows += _read_file(file, columns)
    if not rows:
        raise TableError("There are no rows")
    return rows


def _read_file(path: Path, columns: Columns) -> list[Row]:
    reader = READERS.get(path.suffix)
    if reader is None:
        raise TableError(
            f"{path}: must be one of {', '.join(READERS)}. Of a pickle or Parquet file make one of these with pandas: "
            "pandas.read_pickle(FILE).to_csv('outcomes.csv') - but a pickle runs the code of whoever made it"
        )
    try:
        raw = list(reader(path))
    except (OSError, ValueError, csv.Error) as error:
        raise TableError(f"{path}: {error}") from error
    if not raw:
        raise TableError(f"{path}: no rows")
    if not all(isinstance(row, dict) for row in raw):
        raise TableError(f"{path}: each row must be an object")
    try:
        return _rows(raw, columns)
    except TableError as error:
        raise TableError(f"{path}: {error}") from error


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(sys.maxsize)  # prompts with many examples in them are longer than the usual limit
    with path.open(encoding="utf-8-sig", newline="") as lines:
        yield from csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")


def _json_lines(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _json_rows(path: Path) -> Iterator[Any]:
    value = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(value, dict):
        value = value.get("rows") or value.get("data")
    if not isinstance(value, list):
        raise TableError("must be a list of objects")
    yield from value


READERS = {
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_rows,
}


def _rows(raw: list[dict[str, Any]], columns: Columns) -> list[Row]:
    prompt = columns.prompt or _first(raw[0], PROMPT_NAMES)
    if prompt is None or prompt not in raw[0]:
        raise TableError(f"no column with the prompt among {_shown(raw[0])}; name it with --prompt-column")
    task = columns.task or _first(raw[0], TASK_NAMES)
    if "outcomes" in raw[0]:
        return [_nested(row, prompt, task) for row in raw]
    if columns.model is not None:
        return _long(raw, prompt, task, columns)
    models = columns.models or _model_columns(raw, {prompt, task})
    if len(models) < 2:
        raise TableError(f"no two columns with scores among {_shown(raw[0])}; name them with --models")
    return [_wide(row, prompt, task, models) for row in raw]


def _nested(row: dict[str, Any], prompt: str, task: str | None) -> Row:
    """Our own layout: {"prompt": ..., "outcomes": {model: score or {"score": ..., "cost": ...}}}."""
    scores, costs = {}, {}
    outcomes = row.get("outcomes")
    if not isinstance(outcomes, dict):
        raise TableError("'outcomes' must be an object with a member for each model")
    for model, outcome in outcomes.items():
        members = outcome if isinstance(outcome, dict) else {"score": outcome}
        score = _number(members.get("score", members.get("success")))
        if score is not None:
            scores[model] = score
        if (cost := _number(members.get("cost", members.get("cost_usd")))) is not None:
            costs[model] = cost
    return Row(
        prompt=_text(row.get(prompt)),
        task=str(row.get(task) or "") if task else "",
        scores=scores,
        costs_usd=costs,
    )


def _wide(row: dict[str, Any], prompt: str, task: str | None, models: Sequence[str]) -> Row:
    """A column for each model (RouterBench, RouteLLM)."""
    costs = {model: _number(row.get(model + COST_SUFFIX)) for model in models}
    scores = {model: _number(row.get(model)) for model in models}
    return Row(
        prompt=_text(row.get(prompt)),
        task=str(row.get(task) or "") if task else "",
        scores={model: score for model, score in scores.items() if score is not None},
        costs_usd={model: cost for model, cost in costs.items() if cost is not None},
    )


def _long(raw: list[dict[str, Any]], prompt: str, task: str | None, columns: Columns) -> list[Row]:
    """A row for each prompt and model."""
    found: dict[tuple[str, str], tuple[dict[str, float], dict[str, float]]] = {}
    for row in raw:
        key = (_text(row.get(prompt)), str(row.get(task) or "") if task else "")
        scores, costs = found.setdefault(key, ({}, {}))
        model, score = str(row.get(columns.model or "")), _number(row.get(columns.score))
        if score is None:
            raise TableError(f"no number in the column {columns.score!r}; name it with --score-column")
        scores[model] = score
        if (cost := _number(row.get(columns.cost))) is not None:
            costs[model] = cost
    return [
        Row(prompt=text, task=name, scores=scores, costs_usd=costs)
        for (text, name), (scores, costs) in found.items()
    ]


def _model_columns(raw: list[dict[str, Any]], taken: set[str | None]) -> tuple[str, ...]:
    """Columns that have a cost beside them; else those that hold nothing but scores."""
    names = [name for name in raw[0] if isinstance(name, str)]
    priced = tuple(name for name in names if name + COST_SUFFIX in raw[0])
    if priced:
        return priced
    candidates = [
        name
        for name in names
        if name not in taken
        and name.lower() not in NO_MODELS
        and not name.lower().startswith("unnamed")
        and "|" not in name
    ]
    return tuple(
        name
        for name in candidates
        if all((score := _number(row.get(name))) is None or 0 <= score <= 1 for row in raw)
        and any(_number(row.get(name)) is not None for row in raw)
        and all(_number(row.get(name)) is not None or row.get(name) in (None, "") for row in raw)
    )


def _text(value: Any) -> str:
    """A prompt's text; RouterBench writes lists of texts, and those as text."""
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return str(value)
    if isinstance(value, list):
        return "\n".join(
            _text(part.get("content", "")) if isinstance(part, dict) else str(part) for part in value
        )
    return "" if value is None else str(value)


def _number(value: Any) -> float | None:
    if isinstance(value, bool | int | float):
        number = float(value)
    elif isinstance(value, str) and value.strip():
        text = value.strip().lower()
        try:
            number = TRUTHS[text] if text in TRUTHS else float(text)
        except ValueError:
            return None
    else:
        return None
    return number if math.isfinite(number) else None


def _first(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in row), None)


def _shown(row: Mapping[str, Any]) -> str:
    return ", ".join(map(str, list(row)[:12]))


# --- made up


SUBJECTS = (
    ("greeting", -2.0, ("Translate the greeting '{w}' into French.", "Put '{w}' in upper case.", "Say hello to {w}.")),
    ("lookup", -1.0, ("What is the capital of {w}?", "In which year was {w} founded?", "Who wrote the book about {w}?")),
    ("summary", -0.5, ("Summarize this note about {w}.", "Give the main idea of this text on {w}.")),
    ("arithmetic", 0.5, ("{w} has {a} apples and buys {b} times as many. How many are left after {c} are eaten?",)),
    ("code", 0.8, ("Write a function that sorts the {w} by {a} keys.", "Why does this loop over {w} never end?")),
    ("proof", 2.0, ("Prove that every ideal of the ring {w} is principal.", "Derive the variance of {w} under {a} conditions.")),
    ("law", 1.5, ("Is the {w} liable for damages under this clause?", "May the {w} contest the injunction?")),
)  # fmt: skip
NAMES = (
    "Ada",
    "Lima",
    "Oslo",
    "maple",
    "river",
    "ledger",
    "beacon",
    "copper",
    "harbour",
    "violet",
    "quartz",
    "meadow",
)
FILLER = (
    "the",
    "afternoon",
    "was",
    "calm",
    "and",
    "nobody",
    "in",
    "small",
    "town",
    "near",
    "lake",
    "had",
    "anything",
    "to",
    "say",
)


def synthetic_rows(count: int, seed: int = 0) -> list[Row]:
    """Made-up outcomes of a weak, cheap model and a strong, dear one.

    How hard a prompt is follows from its subject and the numbers in it; how long it is does not depend on that. So a
    program that measures nothing must come out at 0.5, length must too, and words must not.
    """
    chance = random.Random(seed)
    rows = []
    for _ in range(count):
        name, hardness, templates = chance.choice(SUBJECTS)
        a, b, c = (chance.randint(2, 99) for _ in range(3))
        text = chance.choice(templates).format(w=chance.choice(NAMES), a=a, b=b, c=c)
        filler = " ".join(chance.choice(FILLER) for _ in range(chance.randint(0, 80)))
        hardness += chance.gauss(0, 0.7)
        scores = {
            model: float(chance.random() < 1 / (1 + math.exp(hardness - skill)))
            for model, skill in (("weak", 0.3), ("strong", 2.3))
        }
        length = len(text) + len(filler)
        costs = {"weak": length * 1e-8, "strong": length * 2e-7}
        rows.append(Row(prompt=f"{text} {filler}".strip(), task=name, scores=scores, costs_usd=costs))
    return rows
