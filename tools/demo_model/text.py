"""Tokens and conversations: the byte-level BPE, ChatML, and rows to train on."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
from page import NOT_ON_PAGE, OFF_TOPIC, Asker, Entry
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
LONG = 512  # rows from here on hold one long conversation
SPECIAL = [END_OF_TEXT, START, END]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


class Vocabulary:
    """Byte-level BPE as GPT-2 has it, with a second encoder that now and then skips a merge.

    Skipping merges (BPE dropout) shows the network many spellings of a word in tokens, as typing errors and
    unknown words will.
    """

    def __init__(self, corpus: list[str], size: int) -> None:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.train_from_iterator(corpus, trainer)
        model = json.loads(tokenizer.to_str())["model"]
        self.tokenizer = tokenizer
        self.ids: dict[str, int] = model["vocab"]
        self.tokens = sorted(self.ids, key=self.ids.__getitem__)
        self.merges = [tuple(merge) for merge in model["merges"]]
        self._rank = {merge: rank for rank, merge in enumerate(self.merges)}
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        """The tokens of a text without special tokens."""
        return [token for word in self._words(text) for token in self._whole(word)]

    def encode_loosely(self, text: str, rng: np.random.Generator, skip: float) -> list[int]:
        """The same with merges skipped at random."""
        return [token for word in self._words(text) for token in self._merge(word, rng, skip)]

    def decode(self, ids: list[int]) -> str:
        """The text of some tokens."""
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def _words(self, text: str) -> list[str]:
        return [word for word, _ in self.tokenizer.pre_tokenizer.pre_tokenize_str(text)]

    def _whole(self, word: str) -> list[int]:
        if word not in self._cache:
            self._cache[word] = self._merge(word, None, 0.0)
        return self._cache[word]

    def _merge(self, word: str, rng: np.random.Generator | None, skip: float) -> list[int]:
        parts = list(word)
        while len(parts) > 1:
            ranked = [
                (self._rank[pair], i)
                for i, pair in enumerate(itertools.pairwise(parts))
                if pair in self._rank and (rng is None or rng.random() >= skip)
            ]
            if not ranked:
                break
            _, i = min(ranked)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        return [self.ids[part] for part in parts]


@dataclasses.dataclass
class Talk:
    """The tokens of one conversation.

    Beside each token: what it is worth in training, its place, and how many tokens it stands for. `intents` says
    at which place the answer to which entry begins.
    """

    tokens: list[int] = dataclasses.field(default_factory=list)
    weights: list[float] = dataclasses.field(default_factory=list)
    places: list[int] = dataclasses.field(default_factory=list)
    crowd: list[float] = dataclasses.field(default_factory=list)
    intents: dict[int, int] = dataclasses.field(default_factory=dict)

    def copy(self) -> Talk:
        """A copy that may grow on its own."""
        return Talk(self.tokens[:], self.weights[:], self.places[:], self.crowd[:], dict(self.intents))


class Writer:
    """Writes conversations."""

    skip = 0.1  # of the merges of loosely encoded questions
    loose = 0.3  # of the questions
    listen = 0.1  # what a token of a question counts, of an answer 1
    paste = 0.12  # of the questions come with pasted text, 0.25 in long conversations

    def __init__(self, vocabulary: Vocabulary, asker: Asker) -> None:
        self.vocabulary = vocabulary
        self.asker = asker
        self.number = {entry.id: i for i, entry in enumerate(asker.entries)}

    def message(self, talk: Talk, role: str, text: str, *, loose: bool = False, weight: float = 0.0) -> None:
        """Append one message; `weight` is that of its text."""
        ids, v = self.vocabulary.ids, self.vocabulary
        head = v.encode(role + "\n")
        body = (
            v.encode_loosely(text, self.asker.rng, self.skip)
            if loose
            else v.encode(f"{role}\n{text}")[len(head) :]
        )
        tokens = [ids[START], *head, *body, ids[END], ids["\u010a"]]
        talk.weights += [0.0] * (1 + len(head)) + [weight] * (len(body) + 1) + [0.0]
        start = talk.places[-1] + 1 if talk.places else 0
        talk.places += range(start, start + len(tokens))
        talk.crowd += [1.0] * len(tokens)
        talk.tokens += tokens

    def turn(
        self, talk: Talk, entry: Entry, question: str, *, loose: bool = False, listen: float = 0.0
    ) -> None:
        """Append a question and its answer."""
        self.message(talk, "user", question, loose=loose, weight=listen)
        before = len(talk.tokens)
        self.message(talk, "assistant", entry.answer, weight=1.0)
        talk.intents[before + len(self.vocabulary.encode("assistant\n"))] = self.number[entry.id]

    def talk(self, room: int) -> Talk:
        """A conversation of at most that many tokens."""
        rng, asker = self.asker.rng, self.asker
        turns = 40 if room >= LONG else int(rng.choice([1, 2, 3, 5], p=[0.58, 0.22, 0.12, 0.08]))
        while True:
            talk = Talk()
            if asker.chance(0.5):
                self.message(talk, "system", asker.system())
            for _ in range(turns):
                longer = talk.copy()
                self._extend(longer, room)
                if len(longer.tokens) > room:
                    break
                talk = longer
            if talk.intents:
                return talk

    def _extend(self, talk: Talk, room: int) -> None:
        asker = self.asker
        if talk.tokens and asker.chance(0.05):
            self._crowd(talk, 0, len(talk.tokens))
        entry, question = asker.question()
        if asker.chance(0.25 if room >= LONG else self.paste):
            self._paste(talk, entry, question, room)
        else:
            self.turn(talk, entry, question, loose=asker.chance(self.loose), listen=self.listen)

    def _crowd(self, talk: Talk, start: int, end: int) -> None:
        """Let some tokens stand for more, and put those behind them further away."""
        times = 10 ** (self.asker.rng.random() * 2.5)
        talk.crowd[start:end] = [times * c for c in talk.crowd[start:end]]
        jump = int((times - 1) * (end - start))
        talk.places[end - 1 :] = [place + jump for place in talk.places[end - 1 :]]

    def _paste(self, talk: Talk, entry: Entry, question: str, room: int) -> None:
        """A turn with text pasted before or behind the question, or with nothing but pasted text."""
        asker = self.asker
        filler = asker.filler(int(10 + room * 0.25 * asker.rng.random() ** 2))
        gap = asker.pick(["\n\n", "\n", " "])
        if entry.id in {OFF_TOPIC, NOT_ON_PAGE} or asker.chance(0.25):
            entry = asker.entries[-1]
            question = asker.pick(entry.ask) if asker.chance(0.5) else ""
        first = len(talk.tokens) + 3
        if asker.chance(0.8):
            text = (filler + gap + question).strip()
            start, end = 0, len(self.vocabulary.encode(filler))
        else:
            text = (question + gap + filler).strip()
            start, end = len(self.vocabulary.encode(question)), len(self.vocabulary.encode(text))
        self.turn(talk, entry, text)
        if asker.chance(0.7):
            self._crowd(talk, first + start, first + end)

    def rows(self, number: int, length: int) -> dict[str, np.ndarray]:
        """A batch: conversations packed into rows, each blind to its neighbours."""
        batch = {
            "tokens": np.zeros((number, length), np.int32),
            "targets": np.zeros((number, length), np.int32),
            "places": np.zeros((number, length), np.int32),
            "documents": np.full((number, length), -1, np.int32),
            "weights": np.zeros((number, length), np.float32),
            "crowd": np.ones((number, length), np.float32),
            "intents": np.full((number, length), -1, np.int32),
        }
        for row in range(number):
            at = 0
            for document in range(length):
                talk = self.talk(length if length < LONG else length - at)
                size = len(talk.tokens)
                if at + size > length:
                    break
                here = slice(at, at + size)
                batch["tokens"][row, here] = talk.tokens
                batch["targets"][row, at : at + size - 1] = talk.tokens[1:]
                batch["weights"][row, at : at + size - 1] = talk.weights[1:]
                batch["places"][row, here] = talk.places
                batch["crowd"][row, here] = talk.crowd
                batch["documents"][row, here] = document
                for place, intent in talk.intents.items():
                    batch["intents"][row, at + place] = intent
                at += size
                if length - at < 40:
                    break
        return batch
