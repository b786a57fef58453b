"""What can go wrong, by the program's exit codes."""

from typing import List, Optional, Sequence

from ._types import Diagnostic


class PeftcError(Exception):
    """A command ended with an error. ``exit_code`` is its code, ``diagnostics`` what was said of the recipe."""

    def __init__(self, message: str, exit_code: int, diagnostics: Optional[Sequence[Diagnostic]] = None) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code
        self.diagnostics: List[Diagnostic] = list(diagnostics or [])


class Rejected(PeftcError):
    """The recipe, or what was asked for, is wrong (2)."""


class TooLarge(PeftcError):
    """It does not fit the budget, the device or the disk (3)."""


class Diverged(PeftcError):
    """The loss of a training is no number any more (4)."""


class Failed(PeftcError):
    """Something outside of the recipe failed: a file, the network, a device (1)."""


class Interrupted(PeftcError):
    """A signal ended it (129, 130, 143, or the signal's number below zero); the same call goes on from the checkpoint."""


class Bug(PeftcError):
    """A bug of peftc (101)."""


def error(code: int, message: str, diagnostics: Optional[Sequence[Diagnostic]] = None) -> PeftcError:
    """The exception for an exit code."""
    kinds = {1: Failed, 2: Rejected, 3: TooLarge, 4: Diverged, 101: Bug, 129: Interrupted, 130: Interrupted, 143: Interrupted}
    kind = Interrupted if code < 0 else kinds.get(code, PeftcError)
    return kind(message or f"peftc ended with {code}", code, diagnostics)
