"""Encoders and decoders per kind of modality, and the pure functions over all modalities at once.

An encoder maps [B, *shape] to (mean, log variance), each [B, D_m]; a decoder maps [B, D_m] to the raw output of the
likelihood. Normalisation is GroupNorm, so that no batch statistics travel with the parameters (the authors use
BatchNorm).
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.distributions import LIKELIHOODS
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.types import Array, Key, Modality, Params


@dataclasses.dataclass(frozen=True)
class AutoencoderNetworkConfig:
    """Sizes of the encoders and decoders.

    Attributes:
      widths: channels before each halving of the map (residual_conv), of each residual convolution, all equal (patch),
        or units of each hidden layer (mlp).
      dtype: type of the convolutions' operands, ``"float32"`` or ``"bfloat16"``; parameters and norms stay float32.
    """

    widths: tuple[int, ...] = (64, 128, 256)
    dtype: str = "float32"

    def __post_init__(self):
        positive = bool(self.widths) and min(self.widths) >= 1
        require(positive, "autoencoder.network.widths", self.widths, "one or more positive sizes")
        known = self.dtype in ("float32", "bfloat16")
        require(known, "autoencoder.network.dtype", self.dtype, "'float32' or 'bfloat16'")


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups=int(np.gcd(8, channels)), epsilon=1e-5, dtype=jnp.float32)


def _leaky(x: Array) -> Array:
    return nn.leaky_relu(x, 0.2)


def _pool(x: Array, factor: int = 2) -> Array:
    return nn.avg_pool(x, (factor, factor), (factor, factor))


def _upsample(x: Array, factor: int = 2) -> Array:
    return jnp.repeat(jnp.repeat(x, factor, axis=1), factor, axis=2)


class ResidualBlock(nn.Module):
    """conv-norm-act-conv-norm plus a shortcut, then act: the block of Daniel & Tamar (2021)."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, H, W, C] to [B, H, W, features]."""
        conv = functools.partial(nn.Conv, self.features, use_bias=False, dtype=self.dtype)
        hidden = _leaky(_norm(self.features)(conv((3, 3))(x)))
        hidden = _norm(self.features)(conv((3, 3))(hidden))
        if x.shape[-1] != self.features:
            x = conv((1, 1))(x)
        return _leaky(x + hidden)


class Heads(nn.Module):
    """Mean and log variance of the posterior from a flat feature vector."""

    latent_size: int

    @nn.compact
    def __call__(self, features: Array) -> tuple[Array, Array]:
        """Map [B, F] to two arrays [B, D_m]; log variances are kept in [-12, 6]."""
        features = features.astype(jnp.float32)
        log_variance = nn.Dense(self.latent_size, kernel_init=nn.initializers.normal(1e-3))(features)
        return nn.Dense(self.latent_size)(features), jnp.clip(log_variance, -12.0, 6.0)


def _padded_side(shape: tuple[int, ...], num_halvings: int) -> tuple[int, int]:
    factor = 2**num_halvings
    return tuple(-(-side // factor) * factor for side in shape[:2])


def _pad(x: Array, num_halvings: int) -> Array:
    sides = _padded_side(x.shape[1:], num_halvings)
    before = [(side - size) // 2 for side, size in zip(sides, x.shape[1:3], strict=True)]
    pads = [(low, side - size - low) for low, side, size in zip(before, sides, x.shape[1:3], strict=True)]
    return jnp.pad(x, [(0, 0), *pads, (0, 0)])


def _crop(x: Array, shape: tuple[int, ...]) -> Array:
    top, left = ((have - want) // 2 for have, want in zip(x.shape[1:3], shape[:2], strict=True))
    return x[:, top : top + shape[0], left : left + shape[1]]


class ResidualConvEncoder(nn.Module):
    """The paper's encoder: conv 5x5, then residual blocks, each followed by a halving of the map.

    Images whose sides are no multiple of 2^(len(widths) + 1) are zero-padded (28 -> 32, as in the paper). The last map
    is flattened for both heads; the authors split it on channels, one half for each.
    """

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map [B, H, W, C] to (mean, log variance)."""
        x = _pad(x, len(self.widths) + 1)
        x = nn.Conv(self.widths[0], (5, 5), use_bias=False, dtype=self.dtype)(x)
        x = _pool(_leaky(_norm(self.widths[0])(x)))
        for width in self.widths:
            x = _pool(ResidualBlock(width, self.dtype)(x))
        return Heads(self.modality.latent_size)(x.reshape(x.shape[0], -1))


class ResidualConvDecoder(nn.Module):
    """The paper's decoder: a dense layer to a small map, residual blocks with nearest up-sampling, conv 5x5."""

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map [B, D_m] to [B, H, W, C]."""
        shape = self.modality.shape
        height, width = (side // 2 ** len(self.widths) for side in _padded_side(shape, len(self.widths) + 1))
        x = nn.relu(nn.Dense(height * width * self.widths[-1])(z))
        x = x.reshape(-1, height, width, self.widths[-1])
        for features in reversed(self.widths):
            x = _upsample(ResidualBlock(features, self.dtype)(x))
        x = ResidualBlock(self.widths[0], self.dtype)(x)
        x = nn.Conv(shape[-1], (5, 5), dtype=self.dtype)(x)
        return _crop(x, shape).astype(jnp.float32)


PATCH = 4
"""Pixels along a side of the patches that the ``patch`` kind turns into channels."""

SQUEEZE = 16
"""Channels of its maps where they meet the dense layers, which would have most of its parameters otherwise."""


class PatchConvolution(nn.Module):
    """x + act(norm(conv 3x3)): the residual block of the ``patch`` kind."""

    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map [B, H, W, features] to the same shape."""
        return x + nn.silu(_norm(self.features)(nn.Conv(self.features, (3, 3), dtype=self.dtype)(x)))


class PatchEncoder(nn.Module):
    """A small encoder for CPUs, where wide convolutions on small maps are fast and narrow ones on large maps are not.

    Patches of 4x4 pixels become channels; one residual convolution for each width, all equal, then a dense layer.
    """

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map [B, H, W, C] to (mean, log variance)."""
        x = _pad(x, 2)
        batch, height, width, channels = x.shape
        x = x.reshape(batch, height // PATCH, PATCH, width // PATCH, PATCH, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, height // PATCH, width // PATCH, PATCH * PATCH * channels)
        x = nn.silu(nn.Dense(self.widths[0], dtype=self.dtype)(x))
        for features in self.widths:
            x = PatchConvolution(features, self.dtype)(x)
        x = nn.Dense(SQUEEZE, dtype=self.dtype)(x).reshape(batch, -1)
        x = nn.silu(nn.Dense(4 * self.widths[0], dtype=self.dtype)(x))
        return Heads(self.modality.latent_size)(x)


class PatchDecoder(nn.Module):
    """The mirror image of `PatchEncoder`."""

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map [B, D_m] to [B, H, W, C]."""
        shape = self.modality.shape
        height, width = (side // PATCH for side in _padded_side(shape, 2))
        x = nn.silu(nn.Dense(4 * self.widths[0], dtype=self.dtype)(z))
        x = nn.Dense(height * width * SQUEEZE, dtype=self.dtype)(x).reshape(-1, height, width, SQUEEZE)
        x = nn.silu(nn.Dense(self.widths[-1], dtype=self.dtype)(x))
        for features in reversed(self.widths):
            x = PatchConvolution(features, self.dtype)(x)
        x = nn.Conv(PATCH * PATCH * shape[-1], (3, 3), dtype=self.dtype)(x)
        x = x.reshape(-1, height, width, PATCH, PATCH, shape[-1]).transpose(0, 1, 3, 2, 4, 5)
        return _crop(x.reshape(-1, PATCH * height, PATCH * width, shape[-1]), shape).astype(jnp.float32)


class MLPEncoder(nn.Module):
    """Dense layers over flattened data, for vectors such as attributes."""

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        """Map [B, *shape] to (mean, log variance)."""
        x = x.reshape(x.shape[0], -1)
        for width in self.widths:
            x = nn.silu(nn.LayerNorm()(nn.Dense(width, dtype=self.dtype)(x)))
        return Heads(self.modality.latent_size)(x)


class MLPDecoder(nn.Module):
    """Dense layers back to data."""

    modality: Modality
    widths: tuple[int, ...]
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, z: Array) -> Array:
        """Map [B, D_m] to [B, *shape]."""
        for width in reversed(self.widths):
            z = nn.silu(nn.LayerNorm()(nn.Dense(width, dtype=self.dtype)(z)))
        output = nn.Dense(int(np.prod(self.modality.shape)))(z)
        return output.reshape(-1, *self.modality.shape)


KINDS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "residual_conv": (ResidualConvEncoder, ResidualConvDecoder),
    "patch": (PatchEncoder, PatchDecoder),
    "mlp": (MLPEncoder, MLPDecoder),
}


@dataclasses.dataclass(frozen=True)
class Autoencoders:
    """The autoencoders of all modalities as pure functions.

    Parameters of modalities that differ in nothing but their name are stacked on a leading axis and are one entry of
    the parameter dictionary. `batched` chooses how such a group is computed: one `vmap` over the stack (accelerators),
    or one modality after the other (CPU, where a convolution under `vmap` is about nine times slower). The results
    and the parameters are the same.
    """

    modalities: tuple[Modality, ...]
    config: AutoencoderNetworkConfig
    batched: bool

    def __post_init__(self):
        for modality in self.modalities:
            if modality.kind not in KINDS:
                raise unknown(f"kind of modality {modality.name!r}:", modality.kind, KINDS)
            if modality.likelihood not in LIKELIHOODS:
                raise unknown(f"likelihood of modality {modality.name!r}:", modality.likelihood, LIKELIHOODS)
            if modality.kind == "patch" and len(set(self.config.widths)) != 1:
                raise SbmError(
                    f"config.autoencoder.network.widths must be equal for kind 'patch': {self.config.widths}."
                )
            if modality.kind != "mlp" and len(modality.shape) != 3:
                raise SbmError(
                    f"modality {modality.name!r} of kind {modality.kind!r} needs the shape (height, width, channels), "
                    f"not {modality.shape}; use kind 'mlp' for vectors."
                )

    @property
    def groups(self) -> dict[str, list[Modality]]:
        """The modalities by parameter group, in order."""
        groups = collections.defaultdict(list)
        for modality in self.modalities:
            key = (modality.kind, modality.shape, modality.latent_size)
            groups[key].append(modality)
        return {f"{'x'.join(map(str, shape))}_{kind}_{size}": g for (kind, shape, size), g in groups.items()}

    def _module(self, modality: Modality, part: int) -> nn.Module:
        anonymous = dataclasses.replace(modality, name="")
        return KINDS[modality.kind][part](anonymous, self.config.widths, jnp.dtype(self.config.dtype))

    def init(self, key: Key) -> Params:
        """Return {group: {"encoder": ..., "decoder": ...}}, each leaf stacked over the group's modalities."""
        index = {modality.name: i for i, modality in enumerate(self.modalities)}

        def init_one(modality: Modality, number: Array) -> Params:
            keys = jax.random.split(jax.random.fold_in(key, number))
            x, z = jnp.zeros((1, *modality.shape)), jnp.zeros((1, modality.latent_size))
            return {
                "encoder": self._module(modality, 0).init(keys[0], x)["params"],
                "decoder": self._module(modality, 1).init(keys[1], z)["params"],
            }

        return {
            name: jax.vmap(lambda number, m=group[0]: init_one(m, number))(
                jnp.array([index[modality.name] for modality in group])
            )
            for name, group in self.groups.items()
        }

    def _apply(self, params: Params, inputs: Mapping[str, Array], part: int) -> dict[str, Any]:
        """Apply the encoders (part 0) or decoders (part 1) to the modalities that are in `inputs`."""
        outputs = {}
        for name, group in self.groups.items():
            chosen = [(i, modality) for i, modality in enumerate(group) if modality.name in inputs]
            if not chosen:
                continue
            module, weights = self._module(group[0], part), params[name][("encoder", "decoder")[part]]

            def apply(weights, x, module=module):
                return module.apply({"params": weights}, x)

            if self.batched:
                rows = jnp.array([i for i, _ in chosen])
                weights = weights if len(chosen) == len(group) else jax.tree.map(lambda w, r=rows: w[r], weights)
                stacked = jax.vmap(apply)(weights, jnp.stack([inputs[m.name] for _, m in chosen]))
                for row, (_, modality) in enumerate(chosen):
                    outputs[modality.name] = jax.tree.map(lambda a, r=row: a[r], stacked)
            else:
                for i, modality in chosen:
                    own = jax.tree.map(lambda w, i=i: w[i], weights)
                    outputs[modality.name] = apply(own, inputs[modality.name])
        return {m.name: outputs[m.name] for m in self.modalities if m.name in outputs}

    def encode(self, params: Params, data: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """Return {name: (mean [B, D_m], log variance [B, D_m])} for the modalities in `data` (float, [B, *shape])."""
        return self._apply(params, data, 0)

    def decode(self, params: Params, latents: Mapping[str, Array]) -> dict[str, Array]:
        """Return {name: raw decoder output [B, *shape]} for the modalities in `latents`."""
        return self._apply(params, latents, 1)

    def decode_mean(self, params: Params, latents: Mapping[str, Array]) -> dict[str, Array]:
        """Return {name: expected data [B, *shape]} for the modalities in `latents`."""
        likelihood = {modality.name: LIKELIHOODS[modality.likelihood] for modality in self.modalities}
        return {name: likelihood[name].mean(out) for name, out in self.decode(params, latents).items()}
