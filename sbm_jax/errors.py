"""The one exception that means "the user can fix this"."""

import difflib
from collections.abc import Iterable


class SbmError(Exception):
    """A problem the user can mend; its message says what, what was expected and what to do."""


def unknown(what: str, name: object, known: Iterable[str]) -> SbmError:
    """Return the error for a name that is not among the known ones, with the nearest suggested.

    Args:
      what: what the name stands for, such as ``"solver"``.
      name: the name that was given.
      known: the names that exist.
    """
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return SbmError(f"unknown {what} {name!r}.{hint} Known: {', '.join(known)}.")


def require(condition: bool, field: str, value: object, expected: str) -> None:
    """Raise the error for a value out of range, unless `condition` holds.

    Raises:
      SbmError: saying which field, what it is and what was expected.
    """
    if not condition:
        raise SbmError(f"{field} is {value!r}; expected {expected}.")
