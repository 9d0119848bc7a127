"""The compiled form of a system's `generate`, with its rows split over all devices."""

from collections.abc import Mapping

import jax
import numpy as np

from sbm_jax import parallel
from sbm_jax.sampling import CONDITIONINGS, SamplerOptions
from sbm_jax.types import Params, System


def make_generate(system: System, products: Mapping[str, Params], options: SamplerOptions):
    """Return the compiled `(key, data, observed, num_samples, strength=None) -> Generated`.

    Where at least half of the modalities are observed in all rows, a network need not run on all: the largest number
    that is not observed, rounded up to a power of two, is a static argument. A strength, a number or one for each row,
    is a traced one, and given to the function as an array of rows: none of its values or forms compiles again.
    """
    names = [modality.name for modality in system.modalities]

    def function(whole, rows, num_samples, num_free):
        products, key = whole
        data, observed, strength = rows
        return system.generate(
            products, key, data, observed, options, num_samples, strength=strength, num_free=num_free
        )

    static = ("num_samples", "num_free")
    compiled = parallel.over_rows(function, static_argnames=static)
    unsplit = jax.jit(function, static_argnames=static)
    joint = CONDITIONINGS[options.conditioning].moves_observed  # rows depend on each other: none may be added
    used = {name: products[name] for name in system.stage_names}

    def generate(key, data, observed, num_samples, strength=None):
        observed = np.asarray(observed, bool)
        num_rows = len(next(iter(data.values()))) if data else len(np.atleast_2d(observed))
        most_free = int(np.max(np.sum(~(observed & [name in data for name in names]), axis=-1)))
        num_free = 1 << max(most_free - 1, 0).bit_length()
        num_free = num_free if 2 * num_free <= len(names) else None
        # What is wrong with the shapes is for the system to tell.
        fits = observed.shape in ((len(names),), (num_rows, len(names)))
        if fits:
            observed = np.broadcast_to(observed, (num_rows, len(names)))
        if strength is not None and np.ndim(strength) == 0:
            strength = np.full(num_rows, strength, np.float32)
        rows = (dict(data), observed, strength)
        missing = -num_rows % jax.device_count()
        run = unsplit if joint and missing else compiled
        if fits and not joint:
            rows = _lengthen(rows, missing)
        result = run((used, key), rows, num_samples=num_samples, num_free=num_free)
        cut = jax.tree.map(lambda array: array[:num_rows], (result.data, result.latents))
        return result._replace(data=cut[0], latents=cut[1])

    return generate


def _lengthen(rows, number: int):
    """Repeat the first row at the end, with everything observed: there nothing is sampled, and nothing can fail."""
    if not number:
        return rows
    data, observed, strength = jax.tree.map(
        lambda array: np.concatenate([array, np.repeat(array[:1], number, axis=0)]), rows
    )
    observed[-number:] = True
    return data, observed, strength
