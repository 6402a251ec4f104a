"""A selector whose choices do not move while a test looks on."""

from contextlib import AbstractContextManager, nullcontext

from gatewright_library import ModelSelector


class Steady(ModelSelector):
    """Records, but always chooses as if nothing were known."""

    def _past(self) -> AbstractContextManager[None]:
        return nullcontext()
