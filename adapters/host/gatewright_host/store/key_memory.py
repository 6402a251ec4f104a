"""Whether anybody had a key when the store was last read: for a start during which the store is away.

Where nobody had one, requests need none, and are served without the store. Where somebody had, or nobody can tell, they
are refused until the store is back: else whoever brings the store down would be let in.
"""

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Final

from gatewright.accounting.keys import KeyBook
from gatewright_host.state_dir import StateDir

_NOBODY: Final = "nobody"
_SOMEBODY: Final = "somebody"
_DIGITS: Final = 16
_PRIVATE: Final = 0o600


def remember_keys(state: StateDir, url: str, book: KeyBook) -> None:
    """Note whether anybody has a key.

    Args:
        state: State directory.
        url: Of the store.
        book: All keys.
    """
    text = _note(_SOMEBODY if len(book) else _NOBODY, url)
    path = _path(state)
    with suppress(OSError):
        if path.exists() and path.read_text(errors="replace") == text:
            return
        path.touch(mode=_PRIVATE)
        path.chmod(_PRIVATE)  # also where somebody else has made it
        path.write_text(text)
        return
    with suppress(OSError):  # a note that cannot be written must not say what is no longer so
        path.unlink(missing_ok=True)


def nobody_had_a_key(state: StateDir, url: str) -> bool:
    """Whether that is known.

    Args:
        state: State directory.
        url: Of the store. Before the database in the state directory was made, nobody had one.
    """
    try:
        return _path(state).read_text(errors="replace") == _note(_NOBODY, url)
    except FileNotFoundError:
        return url == f"sqlite:///{state.store_file}" and not state.store_file.exists()
    except OSError:
        return False


def _note(who: str, url: str) -> str:
    # The store's name is in it, since another store has other keys; as a hash, since there may be a password in it.
    return f"{who} {hashlib.sha256(url.encode()).hexdigest()[:_DIGITS]}\n"


def _path(state: StateDir) -> Path:
    return state.path / "keys.known"
