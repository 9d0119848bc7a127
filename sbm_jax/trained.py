"""A trained work directory as an object: load it, generate any modality from any others."""

import operator
import os
import pathlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from sbm_jax import exporting
from sbm_jax.data import check_data
from sbm_jax.data.memory import stacked
from sbm_jax.data.pipeline import in_units
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.experiment_config import make_system, read_config
from sbm_jax.formats import make_format
from sbm_jax.runner import Runner
from sbm_jax.sampling import SamplerOptions
from sbm_jax.storage import user_path
from sbm_jax.system import Generated, HasCodecs, System
from sbm_jax.systems.methods import find_method
from sbm_jax.training.stages import load_product
from sbm_jax.types import Key, Modality, Params


class TrainedSystem:
    """A system with its trained parameters.

    Attributes:
      system: the pure functions.
      products: the parameters, by stage name.
      options: sampler options that `generate` uses by default.
    """

    def __init__(self, system: System, products: Mapping[str, Params], options: SamplerOptions):
        """Bind a system to parameters."""
        self.system, self.products, self.options = system, products, options
        self._runner = Runner(system, products)

    def __repr__(self) -> str:
        return f"<TrainedSystem {self.system.name} of {', '.join(modality.name for modality in self.modalities)}>"

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to copy or pickle, without compiled programs, which are compiled again when needed."""
        return {"system": self.system, "products": jax.device_get(self.products), "options": self.options}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `__getstate__` returned."""
        TrainedSystem.__init__(self, **state)

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities, in mask order."""
        return self.system.modalities

    @property
    def num_compiled(self) -> int:
        """The number of programs that `generate` has compiled; a call that increases it took longer for it."""
        return self._runner.num_compiled

    def save_codec(self, name: str, path: str | os.PathLike[str]) -> None:
        """Write the codec of a modality to a file, which the `codec.weights` of another experiment may name.

        Args:
          name: name of the modality.
          path: the file, a NumPy ``.npz``.

        Raises:
          SbmError: for an unknown modality, a system whose modalities have no codecs of their own, or a file that can
            not be written.
        """
        if not isinstance(self.system, HasCodecs):
            raise SbmError(
                f"system {self.system.name!r} has no codecs of single modalities; load one whose name is sbm_*."
            )
        self.system.save_codec(self.products, name, path)

    def generate(
        self,
        data: Mapping[str, ArrayLike],
        targets: Sequence[str] | None = None,
        *,
        observed: np.ndarray | None = None,
        num_samples: int = 1,
        batch_size: int | None = None,
        seed: int = 0,
        strength: float | np.ndarray | None = None,
        options: SamplerOptions | None = None,
        raw: bool = True,
    ) -> Generated:
        """Generate modalities from the given ones.

        Calls with the same options and numbers of rows and samples share a few compiled programs, whichever modalities
        are given: one for all sets, and faster ones for when at most half of the modalities are missing, at most a
        quarter, and so on (see `runner.Runner`).

        Args:
          data: {name: [B, ...]}, the observed modalities, in the form of the training data (see `types.FormatConfig`):
            uint8 images, numbers, strings. Empty for unconditional samples.
          targets: the modalities to generate; None for all that are not observed in every row. Modalities that are
            neither given nor requested are sampled and left out of the result.
          observed: bool [B, M], True = given, in the order of `modalities`; None if all rows have all that is in
            `data`. Where a row lacks a modality, `data` may hold anything, even NaN.
          num_samples: S, samples per row.
          batch_size: B where `data` is empty.
          seed: a 64-bit integer; equal seeds give equal samples, different seeds different ones.
          strength: guidance strength, a number or one for each row [B], 0 or more; None for the config's.
          options: overrides the options that the system was trained with.
          raw: return data in the form of the training data; False for the arrays that networks see, such as class
            probabilities.

        Returns:
          The `data` {name: [B, S, ...]} of the targets and their `latents`, on the host. Observed modalities come back
          unchanged. Diverged samples are NaN, ids -1, and texts empty; a warning gives their number. Binary values and
          single classes can show this only if `raw` is False.

        Raises:
          SbmError: on an unknown modality, data of the wrong shape, not finite or out of range, any other invalid
            argument, or a request that does not fit in memory.
        """
        names = [modality.name for modality in self.modalities]
        arrays = _as_arrays(data)
        _check_names(arrays, targets, names)
        num_samples = _positive("num_samples", num_samples)
        if options is not None and not isinstance(options, SamplerOptions):
            raise SbmError(f"options is {options!r}; expected sbm_jax.sampling.SamplerOptions, or None.")
        num_rows = _num_rows(arrays, batch_size)
        self._runner.require_fits(num_rows, num_samples)  # before anything of this size is allocated
        given = np.tile([name in arrays for name in names], (num_rows, 1))
        if observed is not None:
            given = _checked_observed(observed, given, names)
        rows: dict[str, np.ndarray] = {}
        for name, has in zip(names, given.T, strict=True):
            if has.any():
                rows[name] = self._checked_rows(name, arrays[name], has)
        result = jax.device_get(self._runner(options or self.options, _key(seed), rows, given, num_samples, strength))
        diverged = int(result.info.get("diverged", 0))
        if diverged:
            warnings.warn(
                f"{diverged} of {num_rows * num_samples} samples diverged and are NaN. Lower the strength of the "
                "guidance, or take more steps.",
                RuntimeWarning,
                stacklevel=2,
            )
        if targets is None:
            targets = [name for name, has in zip(names, given.T, strict=True) if not has.all()]
        wanted = [name for name in names if name in targets]
        samples = {name: self._filled(name, np.asarray(result.data[name])) for name in wanted}
        if raw:
            samples = {name: self._as_raw(name, array) for name, array in samples.items()}
        return Generated(
            data={**samples},
            latents=result.latents and {name: result.latents[name] for name in wanted},
            info=result.info,
        )

    def export(
        self,
        path: str | os.PathLike[str],
        *,
        given: Sequence[str] = (),
        targets: Sequence[str] | None = None,
        num_rows: int = 1,
        num_samples: int = 1,
        strength: float | None = None,
        options: SamplerOptions | None = None,
        platforms: Sequence[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
    ) -> pathlib.Path:
        """Write the sampler as one program that runs without this package; it needs only JAX and flatbuffers.

            program = jax.export.deserialize(bytearray(open("sampler.jaxexport", "rb").read()))
            samples = program.call(np.uint32(seed), {"photo": photos})

        It takes a seed, a uint32 scalar, and {name: [B, *shape]} of the given modalities, and returns {name: [B, S,
        *shape]}. Numbers with the format ``"standardized"`` are in the units of the training data; all else are arrays
        as networks see them: floats or token ids. Up to rounding, its samples are those that `generate` returns for
        this seed, with `raw` for the former and without it for the latter.

        Args:
          path: path of the program, such as ``"sampler.jaxexport"``. A ``.json`` file of the same name describes it.
          given: the modalities observed in all rows.
          targets: the modalities to generate; None for all that are not given.
          num_rows: B, rows per call.
          num_samples: S, samples per row.
          strength: guidance strength, 0 or more; None for the config's.
          options: overrides the options that the system was trained with.
          platforms: some of ``"cpu"``, ``"cuda"``, ``"rocm"`` and ``"tpu"``; None for the one in use.
          weights: a ``.safetensors`` file for the weights, which the program then takes as its first argument; None to
            write them into the program.

        Returns:
          The path of the ``.json`` file.

        Raises:
          SbmError: on an unknown modality or platform, any other invalid argument, or a file that cannot be written.
        """
        names = [modality.name for modality in self.modalities]
        if isinstance(given, str):
            raise SbmError(f"given is {given!r}; expected a list of modalities, such as [{given!r}].")
        if targets is None:
            targets = [name for name in names if name not in given]
        _check_names(given, targets, names)
        if options is not None and not isinstance(options, SamplerOptions):
            raise SbmError(f"options is {options!r}; expected sbm_jax.sampling.SamplerOptions, or None.")
        return exporting.write(
            self._runner,
            options or self.options,
            user_path(path, "path"),
            given=[name for name in names if name in given],
            targets=[name for name in names if name in targets],
            num_rows=_positive("num_rows", num_rows),
            num_samples=_positive("num_samples", num_samples),
            strength=strength,
            platforms=exporting.check_platforms(platforms),
            weights=None if weights is None else user_path(weights, "weights"),
        )

    def _checked_rows(self, name: str, array: np.ndarray, has: np.ndarray) -> np.ndarray:
        """Return a modality's rows as networks see them, checked where `has`, bool [B], is True, and 0 elsewhere."""
        modality = self._modality(name)
        if array.dtype.kind == "f" and np.isnan(array[has]).any():
            raise SbmError(
                f"data {name!r} has NaN. If rows lack it, mark in observed which rows have it; otherwise fix it."
            )
        values = make_format(modality).to_array(array[has], f"data {name!r}")
        checked = np.asarray(in_units({name: check_data(name, values, modality)})[name])
        if has.all():
            return checked
        rows: np.ndarray = np.zeros((len(array), *modality.shape), modality.dtype)
        rows[has] = checked
        return rows

    def _filled(self, name: str, samples: np.ndarray) -> np.ndarray:
        """Add to samples [B, S, *shape] what codecs leave to the host."""
        return make_format(self._modality(name)).filled(samples.reshape(-1, *samples.shape[2:])).reshape(samples.shape)

    def _as_raw(self, name: str, samples: np.ndarray) -> np.ndarray:
        """Return samples [B, S, *shape] in the form of the training data, [B, S, ...]."""
        rows = make_format(self._modality(name)).to_raw(samples.reshape(-1, *samples.shape[2:]))
        return rows.reshape(*samples.shape[:2], *rows.shape[1:])

    def _modality(self, name: str) -> Modality:
        return next(modality for modality in self.modalities if modality.name == name)


def _as_arrays(data: Any) -> dict[str, np.ndarray]:
    """Convert the given data to arrays with rows.

    Raises:
      SbmError: if it is not a mapping of names to arrays, or an array is ragged, masked or has no rows.
    """
    if not isinstance(data, Mapping):
        raise SbmError(
            f"data is of type {type(data).__name__}; expected a dictionary of arrays by modality, or {{}} for none."
        )
    arrays = {}
    for name, value in data.items():
        if np.ma.isMaskedArray(value):
            raise SbmError(
                f"data {name!r} is a masked array; give plain rows, and mark in observed which rows have it."
            )
        arrays[name] = _as_array(value, f"data {name!r}")
        if arrays[name].ndim == 0 or not len(arrays[name]):
            raise SbmError(f"data {name!r} is {value!r:.50}; expected an array of one row or more.")
    return arrays


def _as_array(value: Any, where: str) -> np.ndarray:
    """Convert rows to an array; lists and object arrays, of strings or waveforms, are read as in `fit`."""
    listed = isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object)
    if listed and len(value):
        if any(row is None for row in value):
            raise SbmError(f"{where} has None; give any values there, and mark in observed which rows have it.")
        return stacked(list(value), where)
    try:
        return np.asarray(value)
    except (ValueError, TypeError) as error:
        raise SbmError(f"{where} is not an array ({error}); expected rows of equal shape.") from error


def _check_names(data: Iterable[str], targets: Any, names: Sequence[str]) -> None:
    """Raise `SbmError` for unknown modalities, and targets that are not names."""
    if isinstance(targets, str):
        raise SbmError(f"targets is {targets!r}; expected a list of modalities, such as [{targets!r}].")
    if targets is not None and not (isinstance(targets, Sequence) and targets):
        raise SbmError(f"targets is {targets!r}; expected a list of one or more of {', '.join(names)}, or None.")
    for name in [*data, *(targets or ())]:
        if name not in names:
            raise unknown("modality", name, names)


def _integer(name: str, value: Any) -> int:
    """Return an argument as an integer; NumPy's integers count, booleans do not."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise SbmError(f"{name} is {value!r}; expected an integer.") from None


def _key(seed: Any) -> Key:
    """Return the key of a 64-bit seed. JAX uses only the lower 32 bits, so the upper ones are folded in."""
    seed = _integer("seed", seed)
    require(-(2**63) <= seed < 2**63, "seed", seed, "an integer of 64 bits")
    high, low = divmod(seed % 2**64, 2**32)
    key = jax.random.key(np.uint32(low))
    return jax.random.fold_in(key, np.uint32(high)) if high else key


def _positive(name: str, value: Any) -> int:
    number = _integer(name, value)
    require(number >= 1, name, number, "1 or more")
    require(number < 2**31, name, number, "less than 2**31")
    return number


def _num_rows(data: Mapping[str, np.ndarray], batch_size: int | None) -> int:
    """Return B, the number of rows of all arrays and `batch_size`.

    Raises:
      SbmError: if they differ, or neither is given.
    """
    if not data and batch_size is None:
        raise SbmError("nothing is observed: give batch_size, the number of rows to generate.")
    sizes = {name: len(array) for name, array in data.items()}
    if batch_size is not None:
        sizes["batch_size"] = _positive("batch_size", batch_size)
    if len(set(sizes.values())) != 1:
        raise SbmError(f"all modalities (and batch_size) must have the same number of rows, not {sizes}.")
    return next(iter(sizes.values()))


def _checked_observed(observed: Any, given: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Check `observed` against the modalities in the data, `given` bool [B, M], and return it as bool [B, M].

    Raises:
      SbmError: if it has another type or shape, or marks something that is not in the data.
    """
    try:
        mask = np.asarray(observed)
    except ValueError as error:
        raise SbmError(f"observed is not an array ({error}); expected bool {list(given.shape)}.") from error
    if mask.dtype != np.bool_ or mask.shape not in (given.shape, given.shape[1:]):
        raise SbmError(
            f"observed is {mask.dtype} {list(mask.shape)}; expected bool {list(given.shape)}, a row for each of the "
            f"data and a column for each of {', '.join(names)}."
        )
    mask = np.broadcast_to(mask, given.shape)
    lacking = [name for name, column in zip(names, (mask & ~given).T, strict=True) if column.any()]
    if lacking:
        raise SbmError(f"observed is True for {', '.join(lacking)}, which data does not have. Give their arrays.")
    return np.array(mask)


def load(workdir: str | os.PathLike[str], system: str | None = None) -> TrainedSystem:
    """Load a work directory whose training is complete.

    Args:
      workdir: as given to `--workdir`.
      system: the name of one of its systems, as in the table of results; None for the first.

    Raises:
      SbmError: if there is no finished run, or no such system in it.
    """
    if not isinstance(workdir, (str, os.PathLike)):
        raise SbmError(f"workdir is {workdir!r}; expected the path of a work directory.")
    workdir = user_path(workdir, "workdir")
    config = read_config(workdir)
    names = {find_method(name).name: name for name in config.systems}
    wanted = next(iter(names)) if system is None else system
    if wanted not in names:
        raise unknown(f"system of {workdir}:", wanted, names)
    made = make_system(config, names[wanted])
    products = {stage: load_product(stage, workdir) for stage in made.stage_names}
    return TrainedSystem(made, products, config.sampler)
