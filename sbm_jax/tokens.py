"""Tokens and the modalities that own them.

Latents are tokens [B, N, ...]; each modality owns one or more adjacent tokens. `owner`, a tuple of N ints, gives the
modality of each token; () is short for one token per modality. It is static, so that no lookup is compiled when every
modality has one token.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

Owner = tuple[int, ...]


def one_each(owner: Owner) -> bool:
    """Return whether every modality has exactly one token."""
    return owner == tuple(range(len(owner)))


def by_token(values: Shaped[jax.Array, "B M *entry"], owner: Owner) -> Shaped[jax.Array, "B N *entry"]:
    """Repeat each modality's values for each of its tokens."""
    return values if one_each(owner) else jnp.take(values, np.array(owner), axis=1, mode="clip")


def sum_by_modality(values: Shaped[jax.Array, "B N *entry"], owner: Owner) -> Shaped[jax.Array, "B M *entry"]:
    """Sum values over the tokens of each modality."""
    if one_each(owner):
        return values
    bounds = np.searchsorted(owner, np.arange(owner[-1] + 2))
    return jnp.stack([values[:, start:end].sum(axis=1) for start, end in itertools.pairwise(bounds)], axis=1)


def is_owner(owner: Owner) -> bool:
    """Return whether modalities 0 to M - 1 each own one or more tokens, in this order."""
    return tuple(np.unique(owner)) == tuple(range(owner[-1] + 1)) and sorted(owner) == list(owner)


def num_modalities(owner: Owner, num_tokens: int) -> int:
    """Return M, the number of modalities that own the `num_tokens` tokens."""
    return owner[-1] + 1 if owner else num_tokens


def most_tokens(owner: Owner, modalities: int) -> int:
    """Return the largest number of tokens that any `modalities` modalities own together."""
    return int(np.sort(np.bincount(owner))[-modalities:].sum()) if owner and modalities else modalities
