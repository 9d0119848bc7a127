"""Tokens and the modalities that own them.

Latents are tokens [B, N, ...]; each modality owns one or several, next to each other. `owner`, a tuple of N ints, tells
the modality of each token; () is short for one token for each modality. It is static: where every modality has one
token, nothing is looked up.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

Owner = tuple[int, ...]


def one_each(owner: Owner) -> bool:
    """Return whether each modality has one token."""
    return owner == tuple(range(len(owner)))


def by_token(values: jax.Array, owner: Owner) -> jax.Array:
    """Return what holds of modalities, [B, M, ...], for each of their tokens, [B, N, ...]."""
    return values if one_each(owner) else jnp.take(values, np.array(owner), axis=1, mode="clip")


def sum_by_modality(values: jax.Array, owner: Owner) -> jax.Array:
    """Return the sums [B, M, ...] over the tokens of each modality, of values [B, N, ...]."""
    if one_each(owner):
        return values
    bounds = np.searchsorted(owner, np.arange(owner[-1] + 2))
    return jnp.stack([values[:, start:end].sum(axis=1) for start, end in itertools.pairwise(bounds)], axis=1)


def is_owner(owner: Owner) -> bool:
    """Return whether modalities 0 to M - 1 own one or more tokens each, in this order."""
    return tuple(np.unique(owner)) == tuple(range(owner[-1] + 1)) and sorted(owner) == list(owner)


def num_modalities(owner: Owner, num_tokens: int) -> int:
    """Return M, the number of modalities that own `num_tokens` tokens."""
    return owner[-1] + 1 if owner else num_tokens


def most_tokens(owner: Owner, modalities: int) -> int:
    """Return the largest number of tokens that some modalities, at most so many, own."""
    return int(np.sort(np.bincount(owner))[-modalities:].sum()) if owner and modalities else modalities
