"""What values a flag may take (readers) and what it does with them (stores): the vocabulary of ``table``.

A reader returns the value or raises ValueError with the words that complete "it takes ...".
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

from gatewright_host.embedded.flags import FALSE, TRUE, Reader, Settings, Store

_INT32_MAX = 2**31 - 1
_INT32_MIN = -(2**31)
# llama.cpp's pattern for the weights of a mixture of experts (LLM_FFN_EXPS_REGEX).
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
_SAMPLER_LETTERS = {
    "e": "penalties",
    "d": "dry",
    "s": "top_n_sigma",
    "k": "top_k",
    "y": "typ_p",
    "p": "top_p",
    "m": "min_p",
    "x": "xtc",
    "t": "temperature",
}
SAMPLING_CONFIG = "sampling.user_sampling_config"  # a set of member names here, a bit mask in llama.cpp


class Member(NamedTuple):
    """A member of one of xllamacpp's enumerations, by name."""

    enum: str
    name: str


def members(enum: str, prefix: str, names: str) -> dict[str, object]:
    """The words of a choice and the enumeration's members they stand for."""
    return {name: Member(enum, prefix + name.upper().replace("-", "_")) for name in names.split()}


class Lora(NamedTuple):
    """A LoRA adapter: its file and how strongly it applies."""

    path: str
    scale: float


class Grammar(NamedTuple):
    """What every answer must match: GBNF text, or a JSON schema that is still to become GBNF."""

    text: str
    is_schema: bool


# Readers of one plain value


def integer(minimum: int = _INT32_MIN, maximum: int = _INT32_MAX) -> Reader:
    """Read an integer within bounds; by default those of llama.cpp's ``int32_t``."""
    if maximum < _INT32_MAX:
        allowed = f"an integer from {minimum} to {maximum}"
    else:
        allowed = f"an integer of at least {minimum}" if minimum > _INT32_MIN else "an integer"

    def read(text: str) -> object:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(allowed) from None
        if not minimum <= value <= maximum:
            raise ValueError(allowed)
        return value

    return read


def decimal(text: str) -> float:
    """Read a number."""
    try:
        return float(text)
    except ValueError:
        raise ValueError("a number") from None


def verbatim(text: str) -> object:
    """Take the argument as it is."""
    return text


def choice(values: Mapping[str, object]) -> Reader:
    """Read one of a few words."""

    def read(text: str) -> object:
        if text not in values:
            raise ValueError("one of " + ", ".join(values))
        return values[text]

    return read


def on_off(on: object, off: object, auto: object = None) -> Reader:
    """Read llama.cpp's ``on`` or ``off`` (or ``auto``, if there is a value for it) and their synonyms."""
    values = dict.fromkeys(TRUE, on) | dict.fromkeys(FALSE, off)
    if auto is None:
        return choice(values)
    return choice(values | {"auto": auto, "-1": auto})


def thread_count(text: str) -> object:
    """Read a number of threads; none or less means one per processor."""
    value = integer()(text)
    return value if isinstance(value, int) and value > 0 else os.cpu_count() or 1


def slots(text: str) -> object:
    """Read a number of slots; -1 leaves it to llama.cpp."""
    value = integer(-1)(text)
    if value == 0:
        raise ValueError("at least 1, or -1 for automatic")
    return value


def layers(text: str) -> object:
    """Read a number of layers, ``auto`` or ``all``, in llama.cpp's encoding."""
    if text in ("auto", "all"):
        return -1 if text == "auto" else -2
    try:
        return integer(-2)(text)
    except ValueError:
        raise ValueError("a number of layers, auto or all") from None


def inverse(text: str) -> object:
    """Read a factor that llama.cpp keeps as its inverse."""
    value = decimal(text)
    if value <= 0:
        raise ValueError("a number above 0")
    return 1 / value


def seed(text: str) -> object:
    """Read a seed; -1 means a random one, which llama.cpp writes as the largest."""
    value = integer(-1, 2**32 - 1)(text)
    return 2**32 - 1 if value == -1 else value


def temperature(text: str) -> object:
    """Read a temperature; below 0 counts as 0."""
    return max(decimal(text), 0.0)


# Readers of lists and files


def items(text: str) -> list[str]:
    """Read a comma-separated list."""
    found = [item for item in text.split(",") if item]
    if not found:
        raise ValueError("a comma-separated list")
    return found


def decimals(text: str) -> object:
    """Read a list of numbers, separated by commas or slashes."""
    return [decimal(item) for item in text.replace("/", ",").split(",")]


def mebibytes(text: str) -> object:
    """Read a list of sizes in MiB as bytes."""
    try:
        return [int(item) * 1024 * 1024 for item in text.split(",")]
    except ValueError:
        raise ValueError("a comma-separated list of MiB") from None


def contents(path: str) -> str:
    """Read the file that the argument names."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 -- importing pathlib costs a fifth of the start-up
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ValueError(f"a readable text file ({reason})") from None


def lines(path: str) -> object:
    """Read a file of one item per line; lines that start with a hash are comments."""
    return [line for line in contents(path).splitlines() if line and not line.startswith("#")]


def folder(path: str) -> object:
    """Take the path of a folder; llama.cpp wants the separator at its end."""
    if not os.path.isdir(path):  # noqa: PTH112 -- see contents
        raise ValueError("an existing folder")
    return path if path.endswith(os.sep) else path + os.sep


def loras(text: str) -> object:
    """Read paths of LoRA adapters that apply in full."""
    return [Lora(path, 1.0) for path in items(text)]


def scaled_loras(text: str) -> object:
    """Read paths of LoRA adapters, each with its scale."""
    pairs = [item.rpartition(":") for item in items(text)]
    if not all(path for path, _, _ in pairs):
        raise ValueError("FNAME:SCALE,...")
    return [Lora(path, decimal(scale)) for path, _, scale in pairs]


def samplers_by_letter(text: str) -> object:
    """Read the order of samplers as one letter each."""
    if not text or not set(text) <= set(_SAMPLER_LETTERS):
        raise ValueError("letters of " + "".join(_SAMPLER_LETTERS))
    return ";".join(_SAMPLER_LETTERS[letter] for letter in text)


def gbnf(text: str) -> object:
    """Take a grammar in llama.cpp's own notation."""
    return Grammar(text, is_schema=False)


def gbnf_file(path: str) -> object:
    """Read a file with a grammar."""
    return gbnf(contents(path))


def schema(text: str) -> object:
    """Take a JSON schema as the grammar."""
    _json_object(text)
    return Grammar(text, is_schema=True)


def schema_file(path: str) -> object:
    """Read a file with a JSON schema."""
    return schema(contents(path))


def template_arguments(text: str) -> object:
    """Read a JSON object into what llama.cpp hands to the chat template: JSON text by name."""
    import json  # noqa: PLC0415 -- only this flag and the schemas pay for it

    return {name: json.dumps(value) for name, value in _json_object(text).items()}


def _json_object(text: str) -> dict[str, object]:
    import json  # noqa: PLC0415 -- see template_arguments

    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError("a JSON object")  # noqa: TRY004 -- a reader's one error
    return value


# Stores


def to(*targets: str, inverted: bool = False) -> Store:
    """Store the value under every target; ``inverted`` where the attribute says the opposite of the flag."""

    def store(settings: Settings, value: object) -> None:
        settings.update(dict.fromkeys(targets, not value if inverted else value))

    return store


def always(values: Mapping[str, object]) -> Store:
    """Store the same whatever the value, for switches that mean more than one attribute."""

    def store(settings: Settings, _value: object) -> None:
        settings.update(values)

    return store


def sampled(attribute: str, config: str = "") -> Store:
    """Store a sampling default and note that the user chose it, lest the model's own recommendation replace it."""

    def store(settings: Settings, value: object) -> None:
        settings[f"sampling.{attribute}"] = value
        chosen = settings.get(SAMPLING_CONFIG)
        members = chosen if isinstance(chosen, frozenset) else frozenset()
        settings[SAMPLING_CONFIG] = members | {
            "COMMON_PARAMS_SAMPLING_CONFIG_" + (config or attribute.upper())
        }

    return store


def penalty_window(settings: Settings, value: object) -> None:
    """Store how many tokens are penalized; the sampler must remember as many."""
    sampled("penalty_last_n")(settings, value)
    if isinstance(value, int):
        settings["sampling.n_prev"] = max(64, value)


def context(settings: Settings, value: object) -> None:
    """Store the size of the context; an explicit 0 also forbids shrinking it to fit the device."""
    settings["n_ctx"] = value
    if value == 0:
        settings["fit_params_min_ctx"] = -1  # UINT32_MAX to llama.cpp; xllamacpp exposes it as signed


def appended_to(target: str) -> Store:
    """Add the value to a list, for flags that may be repeated."""

    def store(settings: Settings, value: object) -> None:
        collected = settings.get(target)
        settings[target] = [*(collected if isinstance(collected, list) else ()), value]

    return store


def merged_into(target: str) -> Store:
    """Add the entries of the value, a dictionary."""

    def store(settings: Settings, value: object) -> None:
        collected = settings.get(target)
        if isinstance(value, dict):
            settings[target] = (collected if isinstance(collected, dict) else {}) | value

    return store


def reasoning(settings: Settings, value: object) -> None:
    """Store whether to think: 1, 0, or -1 to let the template decide."""
    settings["enable_reasoning"] = value
    if value != -1:
        merged_into("default_template_kwargs")(settings, {"enable_thinking": "true" if value else "false"})


def experts_on_cpu(settings: Settings, value: object) -> None:
    """Keep the experts of every layer (True), or of the first so many, in main memory."""
    if isinstance(value, int) and not isinstance(value, bool):
        patterns = [rf"blk\.{layer}{_EXPERTS}" for layer in range(value)]
    else:
        patterns = [_EXPERTS]
    before = settings.get("tensor_buft_overrides")
    settings["tensor_buft_overrides"] = ",".join(
        [*([str(before)] if before else []), *(f"{p}=CPU" for p in patterns)]
    )


def load_mode(part: str) -> Store:
    """Store half of what is now ``--load-mode``: whether to map the file (``mmap``) or to lock it (``mlock``)."""

    def store(settings: Settings, value: object) -> None:
        mode = settings.get("load_mode")
        before = mode.name.removeprefix("LLAMA_LOAD_MODE_") if isinstance(mode, Member) else "MMAP"
        mapped = bool(value) if part == "mmap" else "MMAP" in before or before == "AUTO"
        locked = bool(value) if part == "mlock" else "MLOCK" in before
        name = "_".join(word for word, wanted in (("MMAP", mapped), ("MLOCK", locked)) if wanted) or "NONE"
        settings["load_mode"] = Member("llama_load_mode", f"LLAMA_LOAD_MODE_{name}")

    return store
