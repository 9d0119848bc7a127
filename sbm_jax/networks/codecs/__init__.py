"""Codecs, which map modalities to latents and back: one file per codec, and `Codecs` for all modalities at once."""

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sbm_jax.config import build, plain
from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs.autoencoder_kl import AutoencoderKLCodec
from sbm_jax.networks.codecs.base import (
    AutoencoderNetworkConfig,
    Bounds,
    Codec,
    Draws,
    FeedForward,
    HasEncoder,
    Pretrained,
)
from sbm_jax.networks.codecs.diffusion import Diffusion
from sbm_jax.networks.codecs.mlp import MLP
from sbm_jax.networks.codecs.nexus import NexusImage, NexusSound
from sbm_jax.networks.codecs.optimus import Optimus
from sbm_jax.networks.codecs.patch import Patch
from sbm_jax.networks.codecs.residual_conv import ResidualConv
from sbm_jax.networks.codecs.series import Series
from sbm_jax.networks.codecs.tokens import Tokens
from sbm_jax.networks.codecs.video import Video
from sbm_jax.networks.per_modality import PerModality
from sbm_jax.registry import find
from sbm_jax.types import Array, Key, Modality, Params

__all__ = [
    "CODECS",
    "AutoencoderNetworkConfig",
    "Bounds",
    "Codec",
    "Codecs",
    "FeedForward",
    "HasEncoder",
    "Objective",
    "Pretrained",
    "check_codec",
    "make_codec",
    "training_settings",
]

CODECS: dict[str, type[Codec]] = {
    "residual_conv": ResidualConv,
    "patch": Patch,
    "mlp": MLP,
    "tokens": Tokens,
    "optimus": Optimus,
    "series": Series,
    "video": Video,
    "diffusion": Diffusion,
    "autoencoder_kl": AutoencoderKLCodec,
    "nexus_image": NexusImage,
    "nexus_sound": NexusSound,
}
"""This package's codecs, by name."""


def make_codec(modality: Modality, network: AutoencoderNetworkConfig) -> Codec:
    """Return the codec of a modality.

    Args:
      modality: the modality, whose `codec` has the codec's name and options.
      network: defaults for options that the modality leaves out, if the codec's options extend this class.

    Raises:
      SbmError: if there is no such codec, or it does not support the modality or the options.
    """
    codec = find(f"codec of modality {modality.name!r}:", modality.codec.name, CODECS, type[Codec])
    shared = plain(network) if issubclass(codec.Options, AutoencoderNetworkConfig) else {}
    where = f"modality {modality.name!r}: codec.network"
    return codec(modality, build(codec.Options, {**shared, **modality.codec.network}, where))


def training_settings(modality: Modality) -> dict[str, Any]:
    """Return the settings of a modality that training depends on, as JSON values.

    If `Codec.Options` has a method `training_settings`, it returns the codec's options as JSON values without those
    that affect only sampling.
    """
    settings, where = plain(modality), f"modality {modality.name!r}: codec.network"
    options = find(f"codec of modality {modality.name!r}:", modality.codec.name, CODECS, type[Codec]).Options
    if hasattr(options, "training_settings"):
        settings["codec"]["network"] = build(options, modality.codec.network, where).training_settings()
    settings["format"]["options"].pop("names", None)  # used only in reports
    return settings


def check_codec(codec: Codec) -> None:
    """Check the shapes and types of a codec's outputs by tracing, without computing anything.

    Raises:
      SbmError: if an output or a parameter does not conform to `Codec`.
    """
    modality, key = codec.modality, jax.random.key(0)
    x = jax.ShapeDtypeStruct((2, *modality.shape), modality.dtype)
    z = jax.ShapeDtypeStruct((2, modality.latent_size), jnp.float32)
    params = jax.eval_shape(codec.init, key)
    output = jax.eval_shape(codec.decode, params, z)
    found = {
        "encode": jax.eval_shape(codec.encode, params, x),
        "loss": jax.eval_shape(codec.loss, params, key, x, output),
        "sample": jax.eval_shape(codec.sample, params, key, output),
    }
    expected = {"encode": (z.shape, z.shape), "loss": (2,), "sample": x.shape}
    where = f"codec {modality.codec.name!r} of modality {modality.name!r}"
    for name, shapes in expected.items():
        seen = jax.tree.map(lambda leaf: leaf.shape, found[name])
        if seen != shapes:
            raise SbmError(f"{where}: {name} returns arrays of {seen}; expected {shapes} for two rows. Fix the codec.")
    if found["sample"].dtype != x.dtype:
        raise SbmError(f"{where}: sample returns {found['sample'].dtype}; expected {x.dtype}. Fix the codec.")
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            name = jax.tree_util.keystr(path)
            raise SbmError(f"{where}: parameter {name} is {leaf.dtype}; expected float32. Fix the codec.")


class Objective(enum.Enum):
    """Which objective of a `Bounds` codec to evaluate: its bound, or its loss with dropout (`TRAINING`) or without."""

    BOUND = enum.auto()
    TRAINING = enum.auto()
    VALIDATION = enum.auto()


_LOSS, _SAMPLE = 10_001, 10_002
"""Folded into the keys of losses and samples; larger than the small numbers that callers fold into theirs."""


@dataclasses.dataclass(frozen=True)
class Codecs:
    """The codecs of all modalities, as pure functions of data and latents by name.

    Callers may pass a key that they also split or fold small numbers into: the codecs' draws are independent of those.

    Attributes:
      modalities: the modalities.
      network: see `make_codec`.
      batched: see `PerModality`.
    """

    modalities: tuple[Modality, ...]
    network: AutoencoderNetworkConfig
    batched: bool

    def __post_init__(self):
        for modality in self.modalities:
            make_codec(modality, self.network)
        self._check_equal_ones_draw_alike()

    def _check_equal_ones_draw_alike(self) -> None:
        """Reject modalities that differ only in sampling options, because their parameters are stacked."""
        found: dict[str, dict[str, Any]] = {}
        for name, network in self.drawing.items():
            modality = next(modality for modality in self.modalities if modality.name == name)
            kind = repr({**training_settings(modality), "name": ""})
            if found.setdefault(kind, network) != network:
                raise SbmError(
                    f"modality {name!r} has the same training settings as another modality, but different sampling "
                    "options. Their parameters are stacked, so give both the same codec.network."
                )

    @property
    def drawing(self) -> dict[str, dict[str, Any]]:
        """The options of codecs that sample step by step, {name: JSON values}."""
        return {modality.name: plain(modality.codec.network) for modality in self.modalities if self._draws(modality)}

    def _draws(self, modality: Modality) -> bool:
        return isinstance(make_codec(modality, self.network), Draws)

    @property
    def are_guided(self) -> bool:
        """Whether guidance makes any codec sample from a distribution other than its likelihood."""
        return any(getattr(make_codec(modality, self.network), "is_guided", False) for modality in self.modalities)

    @property
    def per_modality(self) -> PerModality:
        """Initialises and applies modules with stacked parameters."""
        return PerModality(self.modalities, self.batched)

    def init(self, key: Key) -> Params:
        """Return {group: parameters}, each leaf stacked over the group's modalities."""
        return self.per_modality.init(key, lambda modality, key: make_codec(modality, self.network).init(key))

    @property
    def pretrained(self) -> dict[str, Pretrained]:
        """The codecs with parameters from files, by modality."""
        found = {modality.name: make_codec(modality, self.network) for modality in self.modalities}
        return {name: codec for name, codec in found.items() if isinstance(codec, Pretrained) and codec.files}

    @property
    def files(self) -> list[tuple[str, str]]:
        """Pairs of an option that names a file, and the file's path."""
        return [(f"{name}: {o}", path) for name, codec in self.pretrained.items() for o, path in codec.files.items()]

    def read(self) -> Params:
        """Read the parameters that come from files, {group: parameters}, in the layout of `init`.

        Raises:
          SbmError: if a file cannot be read, or belongs to another network.
        """
        found, codecs = {}, self.pretrained
        for name, group in self.per_modality.groups.items():
            if name in codecs:  # then so is the whole group, which has the same options
                read = [codecs[modality.name].read() for modality in group]
                found[name] = jax.tree.map(lambda *leaves: jnp.stack([*map(jnp.asarray, leaves)]), *read)
        return found

    def encode(self, params: Params, data: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """Return {name: (mean [B, D_m], log variance [B, D_m])} for the modalities in `data` (float, [B, *shape])."""

        def encode(modality: Modality, weights: Params, x: Array) -> tuple[Array, Array]:
            return make_codec(modality, self.network).encode(weights, x)

        return self.per_modality.apply(params, data, encode)

    def decode(self, params: Params, latents: Mapping[str, Array]) -> dict[str, Array]:
        """Return {name: raw output of the decoder [B, ...]} for the modalities in `latents` ([B, D_m])."""

        def decode(modality: Modality, weights: Params, z: Array) -> Array:
            return make_codec(modality, self.network).decode(weights, z)

        return self.per_modality.apply(params, latents, decode)

    def loss(
        self,
        params: Params,
        key: Key,
        data: Mapping[str, Array],
        outputs: Mapping[str, Array],
        train: bool = True,
    ) -> dict[str, Array]:
        """Return {name: training loss [B]} of float data, given the decoders' raw outputs.

        With `train` False, there is no dropout.
        """

        def loss(codec: Codec, *arguments: Any) -> Array:
            return codec.loss(*arguments, train) if isinstance(codec, Bounds) else codec.loss(*arguments)

        return self._terms(loss, params, key, data, outputs)

    def bound(
        self, params: Params, key: Key, data: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> dict[str, Array]:
        """Return {name: -log p(x | z) or an upper bound, [B]} of float data, given the raw outputs, in nats."""

        def bound(codec: Codec, *arguments: Any) -> Array:
            return codec.bound(*arguments) if isinstance(codec, Bounds) else codec.loss(*arguments)

        return self._terms(bound, params, key, data, outputs)

    def _terms(
        self,
        term_fn: Callable[..., Array],
        params: Params,
        key: Key,
        data: Mapping[str, Array],
        outputs: Mapping[str, Array],
    ) -> dict[str, Array]:
        def term(modality: Modality, weights: Params, given: tuple[Array, Array, Key]) -> Array:
            x, output, key = given
            return term_fn(make_codec(modality, self.network), weights, key, x, output)

        keys = self._keys(jax.random.fold_in(key, _LOSS))
        inputs = {name: (data[name], output, keys[name]) for name, output in outputs.items()}
        return self.per_modality.apply(params, inputs, term)

    def sample(
        self, params: Params, key: Key, outputs: Mapping[str, Array], row_numbers: Array | None = None
    ) -> dict[str, Array]:
        """Sample {name: data [B, *shape]}, clipped to their bounds, given the decoders' raw outputs; see `Draws`."""

        def sample(modality: Modality, weights: Params, given: tuple[Array, Key]) -> Array:
            codec = make_codec(modality, self.network)
            numbers = (row_numbers,) if isinstance(codec, Draws) else ()
            output, key = given
            drawn = codec.sample(weights, key, output, *numbers)
            return jnp.clip(drawn, *modality.bounds) if modality.bounds else drawn

        keys = self._keys(jax.random.fold_in(key, _SAMPLE))
        return self.per_modality.apply(params, {name: (output, keys[name]) for name, output in outputs.items()}, sample)

    @property
    def evaluations(self) -> dict[str, int]:
        """Network evaluations per row, {name: number}, of codecs that sample step by step."""
        found = {modality.name: make_codec(modality, self.network) for modality in self.modalities}
        return {name: codec.evaluations for name, codec in found.items() if isinstance(codec, Draws)}

    def generate(
        self,
        params: Params,
        key: Key,
        latents: Mapping[str, Array],
        unwanted: Mapping[str, Array] | None = None,
        row_numbers: Array | None = None,
    ) -> dict[str, Array]:
        """Decode latents and sample {name: data [B, *shape]}.

        Args:
          params: parameters of all codecs.
          key: a typed key.
          latents: {name: latents [B, D_m]}.
          unwanted: {name: scalar bool}; where True, the data may be arbitrary, and codecs that sample step by step are
            skipped.
          row_numbers: int [B], which determine the noise of these codecs; None for 0 to B - 1.
        """
        apart = [name for name in self.evaluations if name in latents and unwanted is not None]
        together = {name: z for name, z in latents.items() if name not in apart}
        found = self.sample(params, key, self.decode(params, together), row_numbers) if together else {}
        for name in apart:

            def draw(name: str = name) -> Array:
                one = {name: latents[name]}
                return self.sample(params, key, self.decode(params, one), row_numbers)[name]

            like = jax.eval_shape(draw)
            found[name] = jax.lax.cond(unwanted[name], lambda like=like: jnp.zeros(like.shape, like.dtype), draw)
        return found

    def log_prob(
        self,
        params: Params,
        key: Key,
        data: Mapping[str, Array],
        latents: Mapping[str, Array],
        objective: Objective = Objective.BOUND,
    ) -> dict[str, Array]:
        """Return {name: log p(x | z), or a bound, [..., B]} of float data [B, *shape], for latents [..., B, D_m].

        For `Bounds` codecs, objectives other than `Objective.BOUND` return minus the training loss, which need not be
        a bound.
        """
        flat = {name: z.reshape(-1, z.shape[-1]) for name, z in latents.items()}
        repeated = {}
        for name, z in latents.items():
            x = data[name]
            repeated[name] = jnp.broadcast_to(x, (*z.shape[:-2], *x.shape)).reshape(-1, *x.shape[1:])
        outputs = self.decode(params, flat)
        if objective is Objective.BOUND:
            losses = self.bound(params, key, repeated, outputs)
        else:
            losses = self.loss(params, key, repeated, outputs, train=objective is Objective.TRAINING)
        return {name: -losses[name].reshape(z.shape[:-1]) for name, z in latents.items()}

    def _keys(self, key: Key) -> dict[str, Key]:
        """Return one key per modality."""
        return dict(zip([m.name for m in self.modalities], jax.random.split(key, len(self.modalities)), strict=True))
