"""What a name in a config stands for: a part of this package, or of another one."""

import importlib
from collections.abc import Mapping
from typing import Any, TypeVar

from sbm_jax.errors import SbmError, unknown

T = TypeVar("T")


def find(what: str, name: str, known: Mapping[str, T]) -> T | Any:
    """Return the part that a name stands for.

    Args:
      what: what is looked for, such as ``"metric"``, for messages.
      name: a key of `known`, or ``"package.module:ATTRIBUTE"``, which is imported. Work directories keep such names, so
        that only those of people you trust should be loaded.
      known: this package's own parts.

    Raises:
      SbmError: if there is no such part, or its module can not be imported.
    """
    if name in known:
        return known[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise unknown(what, name, known)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SbmError(f"{what} {name!r}: {error}. Expected 'package.module:ATTRIBUTE', found by import.") from error
