"""Shared handling of observed data: build masks, decode unobserved modalities, and put observed data back."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from sbm_jax.errors import SbmError, unknown
from sbm_jax.networks.codecs import Codecs
from sbm_jax.types import Array, Data, Key, Modality, Params


def observed_rows(data: Data, observed: Array, modalities: Sequence[Modality]) -> Array:
    """Return the mask of observed modalities, bool [B, M]; modalities that are not in `data` are unobserved.

    Args:
      data: {modality: [B, *shape]} for any of the modalities.
      observed: bool [B, M], or [M] for all rows.
      modalities: M modalities, in mask order.

    Raises:
      SbmError: on an unknown modality or a wrong shape of `observed`.
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
    """Hash each row of data {modality: [B, *shape]} to a number: int32 [B].

    Noise selected by it is the same in whatever batch the row appears, and differs between rows. The hash is the sum of
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
    """Reshape samples {modality: [B * S, *shape]} to [B, S, *shape]; copy data [B, *shape] where observed [B, M]."""
    batch, result = len(observed), {}
    for modality, mask in zip(modalities, observed.T, strict=True):
        drawn = samples[modality.name].reshape(batch, -1, *modality.shape)
        if modality.name in data:
            mask = mask.reshape((batch,) + (1,) * (drawn.ndim - 1))
            drawn = jnp.where(mask, data[modality.name][:, None], drawn)
        result[modality.name] = drawn
    return result


def lost_rows(samples: Data, observed: Array, modalities: Sequence[Modality]) -> Array:
    """Return bool [B], True for rows in which a generated modality is not finite.

    Args:
      samples: {modality: float [B, *shape]} for any of the modalities.
      observed: bool [B, M]; observed modalities are not generated and not checked.
      modalities: M modalities, in mask order.
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
    """Decode latents; codecs that decode step by step skip modalities that all rows have.

    Args:
      codecs: codecs of the modalities.
      params: parameters of the codecs.
      key: a typed key.
      latents: {modality: [B * S, D_m]}.
      observed: bool [B, M].
      modalities: M modalities, in mask order.

    Returns:
      Data {modality: [B * S, *shape]}; bool [B * S], True for rows that diverged in decoding; and, if a codec decodes
      step by step, {``decoder_evaluations``: the number of network evaluations}.
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
