"""Compiled programs of a system's `generate`, with its rows split over all devices."""

import collections
import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from sbm_jax import memory, parallel
from sbm_jax.errors import SbmError
from sbm_jax.sampling import CONDITIONINGS, SamplerOptions
from sbm_jax.system import Generated, SparesObserved, System
from sbm_jax.types import Array, Data, Key, Params


class Runner:
    """Calls a system's `generate`, compiled.

    One program serves all sets of observed modalities: missing ones are passed as zeros that are never read. Each
    combination of options, number of rows and number of samples has its own program, with and without a strength. If at
    most half of the modalities are unobserved in every row, the program of a system that `SparesObserved` computes only
    that many, rounded up to a power of two. The most recently used programs are kept.

    Attributes:
      system: the system whose `generate` is called.
      products: its parameters, by stage name.
      num_compiled: number of programs compiled so far.
    """

    KEPT = 16
    """The number of programs kept; each holds some megabytes and, on a CPU, hundreds of memory maps."""

    def __init__(self, system: System, products: Mapping[str, Params]):
        """Bind a system to its parameters; those of other systems are left out."""
        self.system = system
        self.products = {name: products[name] for name in system.stage_names}
        self._names = [modality.name for modality in system.modalities]
        self.num_compiled = 0
        self._programs: collections.OrderedDict[Hashable, Any] = collections.OrderedDict()

    def __call__(
        self,
        options: SamplerOptions,
        key: Key,
        data: Data,
        observed: Array | np.ndarray,
        num_samples: int,
        strength: float | Array | np.ndarray | None = None,
    ) -> Generated:
        """Return `num_samples` samples of each row; see `system.System.generate`.

        Raises:
          SbmError: on a strength that is negative or not finite, a request that the system refuses, or one that does
            not fit in memory.
        """
        rows = self._complete(data, observed)
        num_rows = len(rows[1])
        rows = (*rows, None if strength is None else _checked_strength(strength, num_rows))
        num_free = self._num_free(rows[1])
        missing = -num_rows % jax.device_count()
        joint = CONDITIONINGS[options.conditioning].moves_observed  # rows depend on each other: none may be appended
        if missing and not joint:
            rows = _lengthen(rows, missing)
        arguments = ((self.products, key), rows)
        signature = (options, num_samples, num_free, jax.tree.structure(rows), *map(_form, jax.tree.leaves(rows)))
        if signature not in self._programs:
            self.require_fits(num_rows, num_samples)
            split = not (joint and missing)
            self._programs[signature] = self._compile(arguments, options, num_samples, num_free, split)
            self.num_compiled += 1
            if len(self._programs) > self.KEPT:
                self._programs.popitem(last=False)
        self._programs.move_to_end(signature)
        program, num_bytes = self._programs[signature]
        self.require_fits(num_rows, num_samples, num_bytes)
        result = program(*arguments)
        if not missing or joint:
            return result
        # Cut on the host: on a device, each length would compile another program.
        data, latents = jax.tree.map(lambda array: array[:num_rows], jax.device_get((result.data, result.latents)))
        return result._replace(data=data, latents=latents)

    def require_fits(self, num_rows: int, num_samples: int, num_bytes: int = 0) -> None:
        """Refuse a request that does not fit in memory.

        Args:
          num_rows: B.
          num_samples: S.
          num_bytes: bytes that its program takes on one device, if compiled; the samples, which every device holds
            whole, are a lower bound.

        Raises:
          SbmError: if it does not fit; says how much is needed and how much is left.
        """
        entries = sum(math.prod(modality.shape) for modality in self.system.modalities)
        memory.require_fits(
            f"generating {num_rows:,} rows with {num_samples:,} samples each",
            max(num_bytes, 4 * entries * num_samples * num_rows),
            "Ask for fewer rows or samples at a time.",
        )

    def function(
        self,
        options: SamplerOptions,
        observed: np.ndarray,
        num_rows: int,
        num_samples: int,
        strength: float | None,
        targets: Sequence[str],
    ) -> Callable[[Mapping[str, Params], Array, Data], dict[str, Array]]:
        """Return `generate` as a function of arrays, for export.

        Args:
          options: sampler options.
          observed: bool [M], True for the modalities given in all rows.
          num_rows: B.
          num_samples: S.
          strength: guidance strength, or None.
          targets: names of the modalities to return.

        Returns:
          `(products, seed, data) -> {modality: [B, S, *shape]}`, where the seed is a uint32. It draws the same samples
          as calls with the key of this seed.
        """
        observed = np.broadcast_to(observed, (num_rows, len(self._names)))
        num_free = self._num_free(observed)
        system = self.system if num_free is None else self.system.with_free(num_free)
        strengths = None if strength is None else _checked_strength(strength, num_rows)

        def generate(products, seed, data):
            rows, given = self._complete(data, observed)
            key = jax.random.key(seed)
            result = system.generate(products, key, rows, given, options, num_samples, strength=strengths)
            return {name: result.data[name] for name in targets}

        return generate

    def _complete(self, data: Data, observed: Array | np.ndarray) -> tuple[dict[str, Array | np.ndarray], np.ndarray]:
        """Return data of all modalities, and observed, bool [B, M]; missing modalities are 0 and not observed."""
        observed, names = np.asarray(observed, bool), self._names
        num_rows = len(next(iter(data.values()))) if data else len(np.atleast_2d(observed))
        if observed.shape not in ((len(names),), (num_rows, len(names))) or set(data) - set(names):
            raise SbmError(
                f"data of {sorted(data)} and observed of shape {list(observed.shape)} do not fit together; expected "
                f"some of {names}, and bool [{num_rows}, {len(names)}] or [{len(names)}]."
            )
        whole = {
            modality.name: data.get(modality.name, np.zeros((num_rows, *modality.shape), modality.dtype))
            for modality in self.system.modalities
        }
        given = np.array([name in data for name in names])
        return whole, np.broadcast_to(observed, (num_rows, len(names))) & given

    def _num_free(self, observed: np.ndarray) -> int | None:
        """Return a bound on the unobserved modalities of a row if it saves work; None to compute all."""
        if not isinstance(self.system, SparesObserved):
            return None
        most = int(np.max(np.sum(~observed, axis=-1)))
        bound = 1 << max(most - 1, 0).bit_length()
        return bound if 2 * bound <= len(self._names) else None

    def _compile(
        self, arguments: tuple, options: SamplerOptions, num_samples: int, num_free: int | None, split: bool
    ) -> tuple[Any, int]:
        """Compile a program for arguments like these; also return its bytes on one device, 0 if not known."""
        system = self.system if num_free is None else self.system.with_free(num_free)

        def function(whole, rows):
            products, key = whole
            data, observed, strength = rows
            return system.generate(products, key, data, observed, options, num_samples, strength=strength)

        compiled = (parallel.over_rows(function) if split else jax.jit(function)).lower(*arguments).compile()
        needed = compiled.memory_analysis()  # None on some backends
        return compiled, needed.temp_size_in_bytes + needed.output_size_in_bytes if needed else 0


def make_generate(system: System, products: Mapping[str, Params], options: SamplerOptions):
    """Return the compiled `(key, data, observed, num_samples, strength=None) -> Generated`; see `Runner`."""
    return functools.partial(Runner(system, products), options)


def _form(array: Array) -> tuple:
    return np.shape(array), str(array.dtype)


def _checked_strength(strength: float | Array, num_rows: int) -> np.ndarray:
    """Return the strength of each row, float32 [B].

    Raises:
      SbmError: if it is neither a number nor one for each row, or is negative or not finite.
    """
    try:
        given = np.asarray(strength)
    except ValueError as error:
        raise SbmError(f"strength is {strength!r}; expected a number, or one for each of {num_rows} rows.") from error
    if given.dtype.kind not in "fiu" or given.shape not in ((), (num_rows,)):
        raise SbmError(
            f"strength is {given.dtype} {list(given.shape)}; expected a number, or one for each of {num_rows} rows."
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused
        values = np.broadcast_to(given.astype(np.float32), (num_rows,))
    if not (np.isfinite(values) & (values >= 0)).all():
        raise SbmError(f"strength is {strength!r}; expected 0 or more, and finite.")
    return values


def _lengthen(rows, number: int):
    """Append copies of the first row with everything observed, so that nothing is sampled or can fail there."""
    data, observed, strength = jax.tree.map(
        lambda array: np.concatenate([array, np.repeat(array[:1], number, axis=0)]), rows
    )
    observed[-number:] = True
    return data, observed, strength
