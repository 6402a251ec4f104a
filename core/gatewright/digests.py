"""Digests that stand for what must not be shown: equal for equal texts, and their own digests."""

import hashlib
import re
from typing import Final

_LENGTH: Final = 12
_DIGEST: Final = re.compile(rf"sha256:[0-9a-f]{{{_LENGTH}}}")


def digest(text: str) -> str:
    """A short digest of a text; of a digest, the same one again: so a replay of what was blanked decides as the original did."""
    if _DIGEST.fullmatch(text):
        return text
    return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_LENGTH]
