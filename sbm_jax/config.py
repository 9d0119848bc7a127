"""Conversion between `ConfigDict` and the frozen dataclasses that define every option, its default and its check."""

import dataclasses
import functools
import math
import numbers
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from ml_collections import ConfigDict, FieldReference, config_dict

from sbm_jax.errors import SbmError, unknown

T = TypeVar("T")


@typing.dataclass_transform(frozen_default=True)
def checked_dataclass(cls: type[T]) -> type[T]:
    """Turn a class into a frozen dataclass that checks the types of its fields whenever an instance is made.

    Fields are checked before the class's own `__post_init__` runs. Integers become floats where a float is declared,
    so that equal options have equal types: they are the keys by which compiled functions are cached.

    Raises:
      SbmError: when an instance is made with a value of the wrong type, or a float that is not finite.
    """
    own = getattr(cls, "__post_init__", None)

    def check(self: Any) -> None:
        for name, hint in _hints(cls).items():
            value = getattr(self, name)
            converted = _convert(hint, value, f"{cls.__name__}.{name}")
            if converted is not value:
                object.__setattr__(self, name, converted)
        if own is not None:
            own(self)

    cls.__post_init__ = check
    return dataclasses.dataclass(frozen=True)(cls)


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    """Return the declared type of each field of a dataclass."""
    hints = typing.get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def build(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Build the dataclass `cls` from plain values, checking names and types.

    Args:
      cls: a frozen dataclass, whose fields may be dataclasses, or tuples of them, themselves.
      values: the values by field name; fields with defaults may be left out. Where a dataclass with a field `name` is
        expected, a string sets that field.
      where: the path of these values, for messages.

    Raises:
      SbmError: on an unknown or missing field, or a value of the wrong type.
    """
    if isinstance(values, ConfigDict):
        values = values.to_dict()
    if not isinstance(values, Mapping):
        raise SbmError(f"{where} must be a group of fields, not {values!r}.")
    hints = _hints(cls)
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


def changed(settings: T, changes: Mapping[str, Any], where: str) -> T:
    """Return a dataclass with some values changed, also in nested groups; see `build`."""
    return build(type(settings), _changed(plain(settings), changes), where) if changes else settings


def _changed(values: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    both = {
        name: _changed(values[name], change)
        if isinstance(change, Mapping) and isinstance(values.get(name), Mapping)
        else change
        for name, change in changes.items()
    }
    return {**values, **both}


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(part for part in arguments if part is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        value = named(hint, value)
        return value if isinstance(value, hint) else build(hint, value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise SbmError(f"{where} must be a tuple, not {value!r}.")
        return tuple(_convert(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise SbmError(f"{where} must be a group of fields, not {value!r}.")
        return dict(value)
    if hint is Any:
        return dict(value) if isinstance(value, Mapping) else value
    number = {int: numbers.Integral, float: numbers.Real}.get(hint)
    if number is None:
        if not isinstance(value, hint):
            raise SbmError(f"{where} must be {hint.__name__}, not {value!r}.")
        return value
    if isinstance(value, bool) or not isinstance(value, number):  # NumPy's numbers count too
        raise SbmError(f"{where} must be {hint.__name__}, not {value!r}.")
    if hint is int:
        if not -(2**63) <= value < 2**63:
            raise SbmError(f"{where} must be an integer of 64 bits, which {value!r:.40} is not.")
        return int(value)
    try:
        number = float(value)
    except OverflowError:  # an integer too large for a float
        number = math.inf
    if not math.isfinite(number):
        raise SbmError(f"{where} must be finite, not {value!r}.")
    return number


def named(cls: type, value: Any) -> Any:
    """Expand a string into ``{"name": value}`` where a dataclass with a field `name` is expected."""
    return {"name": value} if isinstance(value, str) and "name" in _hints(cls) else value


def plain(value: Any) -> Any:
    """Convert dataclasses, mappings and tuples to JSON-ready dictionaries and lists."""
    if dataclasses.is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


# MARK: Defaults


def fill(group: ConfigDict | dict, cls: type, where: str, besides: tuple[str, ...] = ()) -> None:
    """Fill in a group's missing fields with their defaults, and give each field the type that overrides are parsed as.

    Args:
      group: the values of some fields of `cls`.
      cls: a dataclass.
      where: the path of the group, for messages.
      besides: names that the group may have in addition to those fields.

    Raises:
      SbmError: if `group` is not a group of fields, on an unknown field, or on a missing one without a default.
    """
    if not isinstance(group, (ConfigDict, dict)):
        raise SbmError(f"{where} must be a group of fields, not {group!r}.")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in group:
        if name not in fields and name not in besides:
            raise unknown(f"field of {where}:", name, fields)
    given = dict(group.items(preserve_field_references=True) if isinstance(group, ConfigDict) else group)
    for name, field in fields.items():
        value = given[name] if name in given else _default(field, f"{where}.{name}")
        if isinstance(value, FieldReference) and value.get_type() is ConfigDict:
            value = value.get()  # a group that may be None
        elif isinstance(value, FieldReference) and value.get_type() is not type(None):
            continue  # its type is declared, and it may be computed from other fields
        typed = _typed(hints[name], value, f"{where}.{name}")
        if isinstance(group, ConfigDict):
            with group.unlocked(), group.ignore_type():
                if isinstance(typed, FieldReference) and name in group:
                    del group[name]  # or the entry would keep the type of None
                group[name] = typed
        else:  # in a tuple, whose entries have no types
            typed = typed.to_dict() if isinstance(typed, ConfigDict) else typed
            group[name] = typed.get() if isinstance(typed, FieldReference) else typed


def _default(field: dataclasses.Field, where: str) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    if field.default is dataclasses.MISSING:
        raise SbmError(f"{where} is missing; it has no default.")
    return field.default


def _typed(hint: Any, value: Any, where: str) -> Any:
    """Convert a value to its declared type; one that does not fit is left for `config.build` to refuse."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    cls = typing.get_origin(hint) or hint
    if value is None or isinstance(value, FieldReference):
        return config_dict.placeholder(ConfigDict if dataclasses.is_dataclass(cls) else cls)
    if dataclasses.is_dataclass(cls):
        return _group(cls, value, where)
    if cls is tuple and isinstance(value, (list, tuple)):
        entry, *_ = typing.get_args(hint)
        in_tuple = [_typed(entry, item, f"{where}[{i}]") for i, item in enumerate(value)]
        return tuple(item.to_dict() if isinstance(item, ConfigDict) else item for item in in_tuple)
    if cls is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    return value


def _group(cls: type, value: Any, where: str) -> Any:
    value = named(cls, value)
    if isinstance(value, cls):
        value = ConfigDict(plain(value))
    elif isinstance(value, Mapping):  # an entry of a tuple
        value = dict(value)
    if isinstance(value, (ConfigDict, dict)):
        fill(value, cls, where)
    return value
