"""Looks up the parts that configs name, in this package or in others."""

import importlib
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from sbm_jax.errors import SbmError, require, unknown

T = TypeVar("T")


def find(what: str, name: str, known: Mapping[str, T], expected: Any) -> T:
    """Look up a part by name, and import it if it is not one of this package's own.

    Args:
      what: what is being looked up, such as ``"metric"``, for messages.
      name: a key of `known`, or ``"package.module:ATTRIBUTE"``, which is imported. Work directories store such names,
        so load only those from people you trust.
      known: this package's own parts.
      expected: type of the part; ``type[X]`` for subclasses of X, or for classes that implement the protocol X.

    Raises:
      SbmError: if there is no such part, its module cannot be imported, or it has the wrong type.
    """
    require(isinstance(name, str), what, name, "a name")
    if name in known:
        return known[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise unknown(what, name, known)
    try:
        part = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing runs third-party code, which may raise anything
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise SbmError(
            f"{what} {name!r}: {told}. Expected 'package.module:ATTRIBUTE'; run from the folder that holds the module "
            "or package, or set PYTHONPATH."
        ) from error
    _check(f"{what} {name!r}", part, expected)
    return part


def _check(where: str, part: Any, expected: Any) -> None:
    if typing.get_origin(expected) is type:
        (base,) = typing.get_args(expected)
        fits, told = isinstance(part, type) and _is_kind_of(part, base), "a subclass of"
    else:
        base, told = expected, "one of type"
        fits = isinstance(part, base)
    if not fits:
        found = f"the class {part.__name__}" if isinstance(part, type) else f"of type {type(part).__name__}"
        raise SbmError(f"{where} is {found}; expected {told} {base.__module__}.{base.__name__}.")


def _is_kind_of(part: type, base: type) -> bool:
    if not getattr(base, "_is_protocol", False):
        return issubclass(part, base)
    of_classes = [name for name, hint in base.__annotations__.items() if typing.get_origin(hint) is typing.ClassVar]
    methods = [name for name in vars(base) if not name.startswith("_")]
    return all(hasattr(part, name) for name in (*of_classes, *methods))
