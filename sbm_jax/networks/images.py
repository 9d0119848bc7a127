"""Padding, cropping and norms shared by image codecs."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from sbm_jax.errors import SbmError
from sbm_jax.types import Array, Modality


def check_shape(modality: Modality) -> None:
    """Raise `SbmError` unless a modality is an image."""
    if len(modality.shape) != 3:
        raise SbmError(
            f"modality {modality.name!r} with the codec {modality.codec.name!r} needs the shape (height, width, "
            f"channels), not {modality.shape}; use the codec 'mlp' for vectors."
        )


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a group norm, which unlike batch norm has no state to carry alongside the parameters."""
    return nn.GroupNorm(num_groups=int(np.gcd(8, channels)), epsilon=1e-5, dtype=jnp.float32)


def padded_sides(shape: tuple[int, ...], num_halvings: int) -> tuple[int, int]:
    """Return the sides of an image of this shape, padded to multiples of 2^num_halvings."""
    factor = 2**num_halvings
    return tuple(-(-side // factor) * factor for side in shape[:2])


def pad(x: Array, num_halvings: int) -> Array:
    """Zero-pad images [B, H, W, C] on all sides, so that their sides can be halved `num_halvings` times."""
    sides = padded_sides(x.shape[1:], num_halvings)
    before = [(side - size) // 2 for side, size in zip(sides, x.shape[1:3], strict=True)]
    pads = [(low, side - size - low) for low, side, size in zip(before, sides, x.shape[1:3], strict=True)]
    return jnp.pad(x, [(0, 0), *pads, (0, 0)])


def crop(x: Array, shape: tuple[int, ...]) -> Array:
    """Undo `pad`, for images of the given shape (H, W, C)."""
    top, left = ((have - want) // 2 for have, want in zip(x.shape[1:3], shape[:2], strict=True))
    return x[:, top : top + shape[0], left : left + shape[1]]
