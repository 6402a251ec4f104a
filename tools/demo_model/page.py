"""The page of questions and answers, and the many ways to ask one question."""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import re
import tomllib

import numpy as np

HERE = pathlib.Path(__file__).parent
OFF_TOPIC = "off-topic"
NOT_ON_PAGE = "not-on-page"
GAP = re.compile(r"\{(\w+)\}")
SYLLABLES = [c + v for c in (*"bcdfghklmnprstvz", "br", "st", "tr", "sh", "qu") for v in "aeiou"]


def plain(text: str) -> str:
    """The text as it compares: small letters, no punctuation, single spaces."""
    return " ".join(re.sub(r"[^\w\s]", "", text.lower()).split()) or text.strip()


@dataclasses.dataclass(frozen=True)
class Entry:
    """One answer and the phrasings that ask for it."""

    id: str
    answer: str
    ask: list[str]
    held_out: list[str]
    templates: list[str]


@dataclasses.dataclass(frozen=True)
class Phrasing:
    """What may vary around a question."""

    before: list[str]
    after: list[str]
    same: list[list[str]]
    droppable: list[str]
    systems: list[str]


def _read(name: str) -> dict[str, object]:
    return tomllib.loads((HERE / name).read_text(encoding="utf-8"))


def load(parameters: str) -> tuple[list[Entry], dict[str, list[str]], Phrasing]:
    """Read the entries (the off-topic answer is the last), the words for gaps, and the phrasing."""
    off = _read("off_topic.toml")
    fill = off.pop("fill")
    rows = [*_read("questions.toml")["entry"], {"id": OFF_TOPIC, **off}]
    entries = [
        Entry(
            row["id"],
            row["answer"].replace("{parameters}", parameters),
            row["ask"],
            row["held_out"],
            row.get("templates", []),
        )
        for row in rows
    ]
    return entries, fill, Phrasing(**_read("phrasing.toml"))


class Asker:
    """Draws questions: an entry, one of its phrasings, and a variation of that phrasing."""

    def __init__(
        self, entries: list[Entry], fill: dict[str, list[str]], phrasing: Phrasing, rng: np.random.Generator
    ) -> None:
        self.entries = entries
        self.fill = fill
        self.phrasing = phrasing
        self.rng = rng
        self.secret = {plain(q) for entry in entries for q in entry.held_out}
        self.groups = [
            (
                re.compile(r"(?<!\w)" + re.escape(word) + r"(?!\w)", re.IGNORECASE),
                [w for w in group if w != word],
            )
            for group in phrasing.same
            for word in group
        ]
        asked = itertools.chain.from_iterable(entry.ask for entry in entries)
        self.words = sorted(
            {w for text in itertools.chain(asked, fill["noun"], fill["verb"]) for w in text.split()}
        )
        self.weights = np.array([self._weight(entry) for entry in entries])
        self.weights /= self.weights.sum()

    @staticmethod
    def _weight(entry: Entry) -> float:
        return {OFF_TOPIC: 36.0, NOT_ON_PAGE: 6.0}.get(entry.id, (len(entry.ask) / 12) ** 0.5)

    def pick(self, items: list[str]) -> str:
        """One of the items."""
        return items[int(self.rng.integers(len(items)))]

    def chance(self, p: float) -> bool:
        """True with probability p."""
        return bool(self.rng.random() < p)

    def noise(self) -> str:
        """A word that nobody knows."""
        if self.chance(0.2):
            return "".join(
                self.pick(list("abcdefghijklmnopqrstuvwxyz")) for _ in range(int(self.rng.integers(3, 10)))
            )
        return "".join(self.pick(SYLLABLES) for _ in range(int(self.rng.integers(1, 5)))) + self.pick(
            ["", "n", "s", "r"]
        )

    def number(self) -> str:
        """Some number."""
        return str(int(10 ** (self.rng.random() * 4)))

    def _filled(self, template: str) -> str:
        def value(match: re.Match[str]) -> str:
            kind = match.group(1)
            if kind == "noise" or (kind == "noun" and self.chance(0.15)):
                return self.noise()
            return self.number() if kind == "number" else self.pick(self.fill[kind])

        text = GAP.sub(value, template)
        return text[0].upper() + text[1:] if self.chance(0.7) else text

    def question(self) -> tuple[Entry, str]:
        """An entry and a question that asks for it."""
        entry = self.entries[int(self.rng.choice(len(self.entries), p=self.weights))]
        text = (
            self._filled(self.pick(entry.templates))
            if entry.templates and self.chance(0.6)
            else self.pick(entry.ask)
        )
        for _ in range(4):
            varied = self.vary(text, gentle=entry.id in {OFF_TOPIC, NOT_ON_PAGE})
            if plain(varied) not in self.secret:
                return entry, varied
        return entry, self.pick(entry.ask)

    def vary(self, text: str, *, gentle: bool) -> str:
        """The same question, asked differently."""
        if not gentle and self.chance(0.5):
            text = self._reword(text)
            if self.chance(0.4):
                text = self._reword(text)
        if self.chance(0.12):
            words = text.split()
            kept = [w for w in words if w.lower() not in self.phrasing.droppable or self.chance(0.5)]
            text = " ".join(kept or words)
        if self.chance(0.12) and len(text) > 3:
            text = self.pick(self.phrasing.before) + text[0].lower() + text[1:]
        if self.chance(0.1) and len(text) > 8:
            text = text + self.pick(self.phrasing.after)
        if self.chance(0.18):
            text = self._typo(text)
        if self.chance(0.45):
            text = text.lower()
        elif self.chance(0.03):
            text = text.upper()
        return self._end(text)

    def _reword(self, text: str) -> str:
        fitting = [(pattern, words) for pattern, words in self.groups if pattern.search(text)]
        if not fitting:
            return text
        pattern, words = fitting[int(self.rng.integers(len(fitting)))]
        word = self.pick(words)
        text = pattern.sub(lambda _: word, text, count=1)
        return text[0].upper() + text[1:]

    def _typo(self, text: str) -> str:
        spots = [i for i in range(1, len(text) - 1) if text[i - 1 : i + 2].isalpha()]
        if not spots:
            return text
        i = spots[int(self.rng.integers(len(spots)))]
        other = self.pick(list("abcdefghijklmnopqrstuvwxyz"))
        return self.pick(
            [
                text[:i] + text[i + 1 :],
                text[:i] + text[i] + text[i:],
                text[:i] + text[i + 1] + text[i] + text[i + 2 :],
                text[:i] + other + text[i + 1 :],
            ]
        )

    def _end(self, text: str) -> str:
        last = text[-1]
        if last == "?" and self.chance(0.4):
            return text[:-1] + self.pick(["", "", "", "??", " ?", ".", "!"])
        if last == "." and self.chance(0.4):
            return text[:-1] + self.pick(["", "", "!", "..."])
        if last.isalnum() and self.chance(0.2):
            return text + self.pick([".", "!", "?"])
        return text

    def filler(self, words: int) -> str:
        """Text of no meaning, of about that many words: something pasted into a prompt."""
        if self.chance(0.25):
            piece = self.pick(
                [
                    self.pick(self.words) + " ",
                    self.noise() + " ",
                    "The quick brown fox jumps over the lazy dog. ",
                ]
            )
            return (piece * (1 + words // len(piece.split()))).strip()
        if self.chance(0.3):
            text = ""
            while len(text.split()) < words:
                text += self.pick(
                    self.pick_entry().ask if self.chance(0.3) else self.entries[-1].ask
                ) + self.pick([" ", "\n"])
            return text.strip()
        end = ["", "", "", "", "", "", ",", ".", ".\n"]
        return " ".join(
            (self.noise() if self.chance(0.1) else self.pick(self.words)) + self.pick(end)
            for _ in range(words)
        )

    def pick_entry(self) -> Entry:
        """An entry, each as likely as any other."""
        return self.entries[int(self.rng.integers(len(self.entries)))]

    def system(self) -> str:
        """A system message."""
        if self.chance(0.12):
            return self.filler(int(self.rng.integers(3, 30)))
        if self.chance(0.25):
            return self.pick(self.phrasing.systems) + " " + self.pick(self.phrasing.systems)
        return self.pick(self.phrasing.systems)
