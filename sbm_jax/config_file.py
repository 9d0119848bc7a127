"""Config files on the command line, and overrides of any of their fields."""

import ast
import importlib.machinery
import importlib.metadata
import importlib.util
import inspect
import itertools
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_dict, config_flags
from ml_collections.config_flags import config_path, tuple_parser

from sbm_jax.errors import SbmError, unknown
from sbm_jax.storage import user_path


class ConfigParser(flags.ArgumentParser):
    """Turns the value of ``--config`` into the `ConfigDict` that overrides are applied to."""

    def __init__(self, name: str, complete: Callable[[ConfigDict, dict[str, Any]], None], choices: Mapping[str, type]):
        """Prepare to read configs.

        Args:
          name: name of the flag.
          complete: fills in the defaults of a config, given the overrides of `choices` by path.
          choices: {path: type} of the fields that are overridden first, because they determine which other fields
            exist.
        """
        self._name, self._complete, self._choices = name, complete, choices

    def parse(self, path: str) -> ConfigDict:
        """Return the config of a file, with all defaults filled in.

        Args:
          path: the file; text after a colon is passed to `get_config`.

        Raises:
          SbmError: if the file is invalid, or an override on the command line names no field.
        """
        config, arguments = read(path), flags.FLAGS.read_flags_from_files(sys.argv, force_gnu=False)
        chosen = self._chosen(arguments)
        try:
            self._complete(config, chosen)
            config.lock()
        except SbmError as error:
            where = " ".join((path, *(f"--{self._name}.{field}" for field in chosen)))
            raise SbmError(f"{where}: {error}") from error
        except config_dict.RequiredValueError as error:
            raise SbmError(f"{path}: a required_placeholder has no value. Give each field one.") from error
        for argument in arguments:
            if override := re.match(rf"--?(no)?{self._name}\.([^=]*)", argument):
                _check_override(config, self._name, override[2])
        return config

    def _chosen(self, arguments: list[str]) -> dict[str, Any]:
        """Return the overrides of the choices, by path; as usual the last one wins, and tuples are concatenated."""
        found = {}
        for argument, following in itertools.pairwise([*arguments, ""]):
            override = re.match(rf"--?{self._name}\.([^=]*)(=?)(.*)", argument, re.DOTALL)
            if override and override[1] in self._choices:
                text = override[3] if override[2] else following
                if self._choices[override[1]] is tuple:
                    found[override[1]] = found.get(override[1], ()) + _Tuple().parse(text)
                else:
                    found[override[1]] = text
        return found


# MARK: Files


def read(given: str) -> ConfigDict:
    """Read a config file, and return what its `get_config` returns.

    Args:
      given: the file; text after a colon is passed to `get_config`. Where there is no file ``configs/NAME.py``, it is
        the one that the package was installed with.

    Raises:
      SbmError: if it is invalid; names the file, the line and the problem.
    """
    name, *variants = given.split(":", 1)
    path = user_path(name, "--config")
    if not path.exists():
        path = _installed(path) or path
    if not path.is_file():
        found = "it is a directory" if name and path.is_dir() else "there is no such file"
        raise SbmError(f"the config file {name!r} cannot be read: {found}. Name one of configs/, or your own.")
    loader = importlib.machinery.SourceFileLoader("config_of_the_run", str(path))  # accepts any suffix
    spec = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module  # where dataclasses and pickle look for it
    _call(path, lambda: loader.exec_module(module))
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise SbmError(f"{path} has no function get_config; expected one that returns an ml_collections.ConfigDict.")
    try:
        inspect.signature(get_config).bind(*variants)
    except (TypeError, ValueError) as error:  # ValueError: it has no signature
        fix = f"leave out {':' + variants[0]!r}" if variants else f"name variants after a colon, as in {name}:variant"
        raise SbmError(f"get_config of {path} cannot be called ({error}): {fix}, or fix its arguments.") from error
    config = _call(path, lambda: get_config(*variants))
    if not isinstance(config, ConfigDict):
        raise SbmError(
            f"get_config of {path} returns {type(config).__name__}; expected an ml_collections.ConfigDict. Return one."
        )
    return config


def _installed(path: Path) -> Path | None:
    """Return the file under ``configs/`` that a wheel brought; None if there is none, as in a checkout."""
    if path.parts[:1] != ("configs",):
        return None
    try:
        files = importlib.metadata.files("sbm_jax") or ()
    except importlib.metadata.PackageNotFoundError:  # it runs from a directory on the path
        return None
    wanted = f"share/sbm_jax/{path.as_posix()}"
    return next((Path(file.locate()).resolve() for file in files if file.as_posix().endswith(wanted)), None)


def _call(path: Path, function: Callable[[], Any]) -> Any:
    """Run code of a config file, and turn whatever it raises into an `SbmError`."""
    try:
        return function()
    except Exception as error:  # it is not our code: it may raise anything
        file, line = _place(error, path)
        raise SbmError(f"{file}, line {line}: {_told(error)}" if line else f"{file}: {_told(error)}") from error


def _place(error: Exception, path: Path) -> tuple[str, int | None]:
    """Return the file and line of a syntax error, or of the last line that ran in the config file or its imports."""
    if isinstance(error, SyntaxError):
        return error.filename or str(path), error.lineno
    libraries = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        of_a_library = frame.filename.startswith("<") or any(
            map(file.is_relative_to, [*libraries, Path(__file__).parent])
        )
        if file == path or not of_a_library:
            return frame.filename, frame.lineno
    return str(path), None


def _told(error: Exception) -> str:
    """Format an error as one line, without its type where its message explains itself."""
    inner = error
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg}."  # str() would repeat the location
    while inner.args and isinstance(inner.args[0], BaseException):  # ConfigDict wraps errors
        inner = inner.args[0]
    message = inner.args[0] if isinstance(inner, KeyError) and inner.args else inner  # str() would quote it
    text = " ".join(str(message).split())
    if field := re.match(r'Key "([^"]*)" does not exist and cannot be added since the config is locked', text):
        text = f'there is no field "{field[1]}".{re.sub(r"^.*(?= Did you mean )|^.*$", "", text)}'
    return text if isinstance(error, (SbmError, ValueError)) and text else f"{type(error).__name__}: {text}"


# MARK: Overrides


def _check_override(config: ConfigDict, name: str, path: str) -> None:
    """Check that an override names a field.

    Raises:
      SbmError: if it does not; suggests the closest field.
    """
    flag, found, where = f"--{name}.{path}", config, name
    try:
        parts = config_path.split(path)
    except (ValueError, TypeError) as error:
        raise SbmError(
            f"{flag} does not name a field; expected a path such as --{name}.modalities[0].scale."
        ) from error
    for part in parts:
        if found is None:
            raise SbmError(
                f"{flag}: {where} is None, and has no {part!r}. Set the whole group, as in --{where}={{}} for its "
                f"defaults, or --{where}=\"{{'{part}': ...}}\"."
            )
        if isinstance(part, str) and isinstance(found, (ConfigDict, Mapping)):
            if not found:
                raise SbmError(
                    f"{flag}: {where} is an empty group; set the whole group, as in --{where}=\"{{'{part}': ...}}\"."
                )
            if part not in found:
                raise unknown(f"field in {flag}:", part, found)
            where += f".{part}"
        elif isinstance(part, int) and isinstance(found, tuple):
            if not 0 <= part < len(found):
                raise SbmError(f"{flag}: {where} has {len(found)} entries, numbered from 0; there is no {part}.")
            where += f"[{part}]"
        else:
            fix = "a tuple; name one of its entries, as in [0]" if isinstance(found, tuple) else "no group of fields"
            raise SbmError(f"{flag}: {where} is {fix}.")
        found = found[part]


def _literal(text: str) -> Any:
    """Return the value of a Python literal, or the text itself where it is not one."""
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


class _Whole(flags.ArgumentParser):
    """Parses integers, also written as 1e3, and None."""

    def parse(self, argument: Any) -> int | None:
        value = _literal(argument) if isinstance(argument, str) else argument
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ValueError("expected a whole number")
        return value


class _Number(flags.FloatParser):
    """Parses numbers and None."""

    def parse(self, argument: Any) -> float | None:
        if argument in (None, "None"):
            return None
        try:
            return float(argument)
        except ValueError as error:
            raise ValueError("expected a number") from error


class _Switch(flags.BooleanParser):
    """Parses true and false."""

    def parse(self, argument: Any) -> bool:
        try:
            return super().parse(argument)
        except (ValueError, TypeError) as error:
            raise ValueError("expected true or false") from error


class _Tuple(tuple_parser.TupleParser):
    """Parses tuples, written as in Python or as comma-separated entries."""

    def parse(self, argument: Any) -> tuple:
        if not isinstance(argument, str):
            return super().parse(argument)
        value = _literal(argument)
        if isinstance(value, str):
            inner = re.sub(r"^\s*[(\[](.*)[)\]]\s*$", r"\1", value)
            value = [_literal(part.strip()) for part in inner.split(",") if part.strip()]
        return tuple(value) if isinstance(value, (list, tuple, set)) else (value,)


class _Group(flags.ArgumentParser):
    """Parses groups of fields, written as Python dictionaries, and None."""

    def parse(self, argument: Any) -> ConfigDict | None:
        value = _literal(argument) if isinstance(argument, str) else argument
        if value is None or isinstance(value, ConfigDict):
            return value
        if not isinstance(value, dict):
            raise ValueError(
                "expected a group of fields, as in {'width': 64}, or None; or override its fields one by one"
            )
        return ConfigDict(value)


class _Untyped(flags.ArgumentParser):
    """Parses tuple entries that are neither a number nor a group: any Python literal, or the text itself."""

    def parse(self, argument: Any) -> Any:
        return _literal(argument) if isinstance(argument, str) else argument


for _kind, _parser in (
    (type(None), _Untyped()),
    (dict, _Untyped()),
    (int, _Whole()),
    (float, _Number()),
    (bool, _Switch()),
    (tuple, _Tuple()),
    (ConfigDict, _Group()),
):
    config_flags.register_flag_parser_for_type(_kind, _parser)
