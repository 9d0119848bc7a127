"""The exception for problems that the user can fix."""

import difflib
from collections.abc import Iterable


class SbmError(Exception):
    """A problem that the user can fix; its message says what is wrong, what was expected and what to do."""


def unknown(what: str, name: object, known: Iterable[str]) -> SbmError:
    """Return the error for an unknown name, suggesting the closest known one.

    Args:
      what: what the name refers to, such as ``"solver"``.
      name: the unknown name.
      known: the known names.
    """
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return SbmError(f"unknown {what} {name!r}.{hint} Known: {', '.join(known)}.")


def require(condition: bool, field: str, value: object, expected: str) -> None:
    """Raise `SbmError` for an invalid value, unless `condition` holds.

    Raises:
      SbmError: stating the field, its value and what was expected.
    """
    if not condition:
        raise SbmError(f"{field} is {value!r}; expected {expected}.")
