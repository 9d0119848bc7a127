"""The compiled form of a system's `generate`."""

from collections.abc import Mapping

import jax
import numpy as np

from sbm_jax.sampling import SamplerOptions
from sbm_jax.types import Params, System


def make_generate(system: System, products: Mapping[str, Params], options: SamplerOptions):
    """Return the compiled `(key, data, observed, num_samples, strength=None) -> Generated`.

    Where at least half of the modalities are observed in all rows, a network need not run on all: the largest number
    that is not observed, rounded up to a power of two, is a static argument. A strength, a number or one for each row,
    is a traced one, and given to the function as an array of rows: none of its values or forms compiles again.
    """
    compiled = jax.jit(
        lambda products, key, data, observed, strength, num_samples, num_free: system.generate(
            products, key, data, observed, options, num_samples, strength=strength, num_free=num_free
        ),
        static_argnames=("num_samples", "num_free"),
    )
    used = {name: products[name] for name in system.stage_names}

    def generate(key, data, observed, num_samples, strength=None):
        given = [modality.name in data for modality in system.modalities]
        observed = np.asarray(observed, bool)
        most_free = int(np.max(np.sum(~(observed & given), axis=-1)))
        if strength is not None and np.ndim(strength) == 0:
            num_rows = len(next(iter(data.values()))) if data else len(np.atleast_2d(observed))
            strength = np.full(num_rows, strength, np.float32)
        num_free = 1 << max(most_free - 1, 0).bit_length()
        num_free = num_free if 2 * num_free <= len(system.modalities) else None
        return compiled(used, key, data, observed, strength, num_samples=num_samples, num_free=num_free)

    return generate
