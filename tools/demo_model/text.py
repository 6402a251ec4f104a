"""Tokens and conversations: the byte-level BPE, ChatML, and rows to train on."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
from page import NOT_ON_PAGE, OFF_TOPIC, Asker, Entry
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
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

    def __init__(self, corpus: list[str], size: int):
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
                for i, pair in enumerate(zip(parts, parts[1:], strict=False))
                if pair in self._rank and (rng is None or rng.random() >= skip)
            ]
            if not ranked:
                break
            _, i = min(ranked)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        return [self.ids[part] for part in parts]


@dataclasses.dataclass
class Talk:
    """The tokens of one conversation, what each is worth in training, and whose question was meant where."""

    tokens: list[int]
    weights: list[float]
    places: list[int]
    intents: dict[int, int]


class Writer:
    """Writes conversations."""

    def __init__(self, vocabulary: Vocabulary, asker: Asker, *, skip: float = 0.1, listen: float = 0.1):
        self.vocabulary = vocabulary
        self.asker = asker
        self.skip = skip
        self.listen = listen
        self.number = {entry.id: i for i, entry in enumerate(asker.entries)}

    def message(self, talk: Talk, role: str, text: str, *, loose: bool = False, weight: float = 0.0) -> None:
        """Append one message; of the assistant's every token after its role counts in full."""
        ids, v = self.vocabulary.ids, self.vocabulary
        head = v.encode(role + "\n")
        body = v.encode_loosely(text, self.asker.rng, self.skip) if loose else v.encode(f"{role}\n{text}")[len(head) :]
        tokens = [ids[START], *head, *body, ids[END], ids["\u010a"]]
        talk.weights += [0.0] * (1 + len(head)) + [weight] * (len(body) + 1) + [0.0]
        start = talk.places[-1] + 1 if talk.places else 0
        talk.places += range(start, start + len(tokens))
        talk.tokens += tokens

    def turn(self, talk: Talk, entry: Entry, question: str, *, loose: bool = False, known: bool = True) -> None:
        """Append a question and its answer."""
        self.message(talk, "user", question, loose=loose, weight=self.listen if known else 0.0)
        before = len(talk.tokens)
        self.message(talk, "assistant", entry.answer, weight=1.0)
        talk.intents[before + len(self.vocabulary.encode("assistant\n"))] = self.number[entry.id]

    def talk(self, room: int) -> Talk:
        """A conversation of at most that many tokens."""
        rng, asker = self.asker.rng, self.asker
        turns = int(rng.choice([1, 2, 3, 5], p=[0.58, 0.22, 0.12, 0.08])) if room < 512 else 40
        while True:
            talk = Talk([], [], [], {})
            if asker.chance(0.5):
                self.message(talk, "system", asker.system())
            for _ in range(turns):
                entry, question = asker.question()
                kept = dataclasses.replace(
                    talk, tokens=talk.tokens[:], weights=talk.weights[:], places=talk.places[:], intents=dict(talk.intents)
                )
                pasted = asker.chance(0.06 if room < 512 else 0.25)
                if pasted:
                    entry, question = self._paste(entry, question, room)
                if asker.chance(0.04):
                    talk.places[-1:] = [p + int(10 ** (rng.random() * 4.4)) for p in talk.places[-1:]]
                self.turn(talk, entry, question, loose=asker.chance(0.3), known=not pasted)
                if len(talk.tokens) > room:
                    talk = kept
                    break
            if talk.intents:
                return talk

    def _paste(self, entry: Entry, question: str, room: int) -> tuple[Entry, str]:
        asker = self.asker
        filler = asker.filler(int(20 + (room * 0.3 - 20) * asker.rng.random() ** 2))
        if entry.id in {OFF_TOPIC, NOT_ON_PAGE} or asker.chance(0.3):
            return asker.entries[-1], self._joined(filler, asker.pick(asker.entries[-1].ask)) if asker.chance(0.5) else filler
        return entry, self._joined(filler, question)

    def _joined(self, filler: str, question: str) -> str:
        gap = self.asker.pick(["\n\n", "\n", " "])
        return filler + gap + question if self.asker.chance(0.75) else question + gap + filler

    def rows(self, number: int, length: int) -> dict[str, np.ndarray]:
        """A batch: conversations packed into rows, each blind to its neighbours."""
        batch = {
            "tokens": np.zeros((number, length), np.int32),
            "targets": np.zeros((number, length), np.int32),
            "places": np.zeros((number, length), np.int32),
            "documents": np.full((number, length), -1, np.int32),
            "weights": np.zeros((number, length), np.float32),
            "intents": np.full((number, length), -1, np.int32),
        }
        for row in range(number):
            at = 0
            for document in range(length):
                talk = self.talk(length if length < 512 else length - at)
                size = len(talk.tokens)
                if at + size > length:
                    break
                here = slice(at, at + size)
                batch["tokens"][row, here] = talk.tokens
                batch["targets"][row, at : at + size - 1] = talk.tokens[1:]
                batch["weights"][row, at : at + size - 1] = talk.weights[1:]
                batch["places"][row, here] = talk.places
                batch["documents"][row, here] = document
                for place, intent in talk.intents.items():
                    batch["intents"][row, at + place] = intent
                at += size
                if length - at < 40:
                    break
        return batch
