"""What every system does with observed data: tell which rows have what, decode the rest, and put it back."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from sbm_jax.errors import SbmError, unknown
from sbm_jax.networks.codecs import Codecs
from sbm_jax.types import Array, Data, Key, Modality, Params


def observed_rows(data: Data, observed: Array, modalities: Sequence[Modality]) -> Array:
    """Return what is observed in each row, bool [B, M]; what is not in the data is not.

    Args:
      data: {modality: [B, *shape]}, of any of the modalities.
      observed: bool [B, M], or [M] for all rows.
      modalities: M modalities.

    Raises:
      SbmError: on data of an unknown modality, or another shape of `observed`.
    """
    names = [modality.name for modality in modalities]
    for name in data:
        if name not in names:
            raise unknown("modality", name, names)
    shape = jnp.shape(observed)
    batch = len(next(iter(data.values()))) if data else (shape[0] if len(shape) == 2 else 1)
    if shape not in ((len(names),), (batch, len(names))):
        raise SbmError(f"observed must be bool [{batch}, {len(names)}] or [{len(names)}], not {list(shape)}.")
    at_hand = jnp.array([[name in data for name in names]])
    return jnp.broadcast_to(jnp.asarray(observed).reshape(-1, len(names)) & at_hand, (batch, len(names)))


def numbers_of(data: Data) -> Array:
    """Return a number for each row of data {modality: [B, *shape]} that its values decide: int32 [B].

    What is drawn by it is the same in every batch that the row comes in, and another for other rows: a hash, the sum of
    the bits of all values with random odd weights, modulo 2**32.
    """
    key, total = jax.random.key(0), jnp.uint32(0)
    for place, name in enumerate(sorted(data)):
        values = jnp.asarray(data[name])
        whole = jnp.int32 if jnp.issubdtype(values.dtype, jnp.integer) else jnp.float32
        bits = jax.lax.bitcast_convert_type(values.astype(whole).reshape(len(values), -1), jnp.uint32)
        weights = jax.random.bits(jax.random.fold_in(key, place), bits.shape[1:], jnp.uint32) | 1
        total = total + (bits * weights[None]).sum(axis=1, dtype=jnp.uint32)
    return jax.lax.bitcast_convert_type(total, jnp.int32)


def put_back(samples: Data, data: Data, observed: Array, modalities: Sequence[Modality]) -> dict[str, Array]:
    """Return samples {modality: [B * S, *shape]} as [B, S, *shape], with the data [B, *shape] where observed [B, M]."""
    batch, result = len(observed), {}
    for modality, mask in zip(modalities, observed.T, strict=True):
        drawn = samples[modality.name].reshape(batch, -1, *modality.shape)
        if modality.name in data:
            mask = mask.reshape((batch,) + (1,) * (drawn.ndim - 1))
            drawn = jnp.where(mask, data[modality.name][:, None], drawn)
        result[modality.name] = drawn
    return result


def lost_rows(samples: Data, observed: Array, modalities: Sequence[Modality]) -> Array:
    """Return the rows of which something that is generated is not finite: bool [B].

    Args:
      samples: {modality: float [B, *shape]}, of any of the modalities.
      observed: bool [B, M]; what is observed is not generated.
      modalities: M modalities.
    """
    lost = jnp.zeros(len(observed), bool)
    for modality, mask in zip(modalities, observed.T, strict=True):
        if modality.name in samples:
            array = samples[modality.name]
            lost |= ~jnp.isfinite(array.reshape(len(array), -1)).all(axis=1) & ~mask
    return lost


def decode(
    codecs: Codecs,
    params: Params,
    key: Key,
    latents: Mapping[str, Array],
    observed: Array,
    modalities: Sequence[Modality],
) -> tuple[dict[str, Array], Array, dict[str, Array]]:
    """Decode latents; codecs that draw step by step are spared what all rows have.

    Args:
      codecs: of the modalities.
      params: of the codecs.
      key: a typed key.
      latents: {modality: [B * S, D_m]}.
      observed: bool [B, M].
      modalities: M modalities.

    Returns:
      Data {modality: [B * S, *shape]}; which of these rows were lost in drawing, bool [B * S]; and, where something is
      drawn, the number of ``decoder_evaluations``.
    """
    names = [modality.name for modality in modalities]
    unwanted = dict(zip(names, observed.all(axis=0), strict=True))
    samples = codecs.generate(params, key, latents, unwanted)
    costs = {name: number for name, number in codecs.evaluations.items() if name in latents}
    rows = jnp.repeat(observed, len(next(iter(samples.values()))) // len(observed), axis=0)
    lost = lost_rows({name: samples[name] for name in costs}, rows, modalities)
    if not costs:
        return samples, lost, {}
    made = [jnp.where(unwanted[name], 0.0, number) for name, number in costs.items()]
    return samples, lost, {"decoder_evaluations": jnp.max(jnp.stack(made))}
