"""From a `ConfigDict` to the frozen dataclasses that own each option: the one place where configs are checked."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict

from sbm_jax.errors import SbmError, unknown

T = TypeVar("T")


def build(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Make the dataclass `cls` from plain values, checking names and types.

    Args:
      cls: a frozen dataclass; fields may be dataclasses, or tuples of them, themselves.
      values: the values by field name; fields with defaults may be left out.
      where: the path of these values, for messages.

    Raises:
      SbmError: on an unknown or missing field, or a value of another type than declared.
    """
    if isinstance(values, ConfigDict):
        values = values.to_dict()
    if not isinstance(values, Mapping):
        raise SbmError(f"{where} must be a group of fields, not {values!r}.")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            raise unknown(f"field of {where}:", name, fields)
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], f"{where}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SbmError(f"{where}.{name} is missing; it has no default.")
    return cls(**arguments)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(kind for kind in arguments if kind is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise SbmError(f"{where} must be a tuple, not {value!r}.")
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict or hint is dict or hint is Any:
        return dict(value) if isinstance(value, Mapping) else value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise SbmError(f"{where} must be {hint.__name__}, not {value!r}.")
    return value


def plain(value: Any) -> Any:
    """Return dataclasses, mappings and tuples as JSON-ready dictionaries and lists."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value
