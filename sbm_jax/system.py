"""The protocol of a system, the samples that it returns, and capabilities that only some systems have.

Shape letters are those of `types`.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from sbm_jax.types import Array, Data, Dataset, Key, Modality, Params, Stage


class Generated(NamedTuple):
    """Samples that a system generates.

    Attributes:
      data: {modality: [B, S, *shape]}; observed modalities come back unchanged.
      latents: {modality: [B, S, D_m]}, or None if the system has no latents per modality.
      info: scalars: ``network_evaluations`` per sample, the number of ``diverged`` samples, and, with diffusion
        decoders, ``decoder_evaluations`` per decoder and sample.
    """

    data: dict[str, Array | np.ndarray]
    latents: dict[str, Array] | None
    info: dict[str, Array]


class System(Protocol):
    """A row of the results table: named training stages, and pure functions of their products.

    Capabilities that only some systems have are declared by `Encodes`, `HasLikelihood`, `HasCodecs`, `Reconstructs` and
    `SparesObserved`.

    Attributes:
      name: name of the row.
      modalities: M modalities, in mask order.
      stage_names: names of the stages whose products its functions use.
    """

    name: str
    modalities: tuple[Modality, ...]
    stage_names: tuple[str, ...]

    def check(self, options: Any) -> None:
        """Raise `SbmError` if the system cannot work with these sampler options, before anything is trained."""

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the training stages, each after those that it requires."""

    def generate(
        self,
        products: Mapping[str, Params],
        key: Key,
        data: Data,
        observed: Array,
        options: Any,
        num_samples: int = 1,
        *,
        strength: Array | float | None = None,
    ) -> Generated:
        """Generate the modalities that are not observed.

        Args:
          products: the stages' products by stage name.
          key: a typed key.
          data: {modality: [B, *shape]}; unobserved modalities are ignored and may be left out.
          observed: bool [B, M] or [M], True = given; modalities that are not in `data` count as not given.
          options: the sampler's options.
          num_samples: S, samples per row.
          strength: guidance strength, a number or one for each row [B]; None for the system's own.

        Raises:
          SbmError: on an unknown modality, a wrong shape, or a strength without guidance.
        """

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return reconstructions of float data with all modalities given, {modality: [B, *shape]}."""


@runtime_checkable
class Encodes(Protocol):
    """A system with latents per modality."""

    def encode(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return the latents {modality: [B, D_m]} of float data, in the units of generated latents."""


@runtime_checkable
class HasLikelihood(Protocol):
    """A system that may bound the likelihood of data.

    Attributes:
      has_likelihood: whether it does so with its config; guidance, for example, changes the distribution.
      has_costly_density: whether to ask for only one log weight per row, and use only their mean: it takes many
        evaluations of a network, or is itself an estimate of a bound.
    """

    has_likelihood: bool
    has_costly_density: bool

    def log_weights(self, products: Mapping[str, Params], key: Key, data: Data, num_samples: int) -> Array:
        """Return log p(x, z_s) - log q(z_s | x), [B, S] in nats, of posterior samples given complete float data."""


@runtime_checkable
class SparesObserved(Protocol):
    """A system that need not compute observed modalities, if their number is known."""

    def with_free(self, number: int) -> System:
        """Return the system for rows with at most `number` unobserved modalities: the same samples, in less time."""


@runtime_checkable
class HasCodecs(Protocol):
    """A system in which each modality has its own codec."""

    def posteriors(self, products: Mapping[str, Params], data: Data) -> dict[str, tuple[Array, Array | None]]:
        """Return the codecs' {modality: (mean, log variance)}, both [B, D_m], of float data, in the codecs' units.

        The log variance of a deterministic codec is None.
        """

    def codec_reconstructions(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return reconstructions by the codecs alone, from their posterior means, {modality: [B, *shape]}."""

    def save_codec(self, products: Mapping[str, Params], name: str, path: str | os.PathLike[str]) -> None:
        """Write the trained codec of a modality to a file, which a modality's `codec.weights` may name."""


@runtime_checkable
class Reconstructs(Protocol):
    """A system whose reconstructions can condition a diffusion decoder.

    Attributes:
      decoder_name: name of what reconstructs, the same for systems that share it.
      decoder_stages: names of the stages whose products it uses.
      decoder_settings: how it samples its reconstructions, as JSON values, beyond the settings of its stages; {} for
        means.
      tells_latents: whether it has latents per modality.
    """

    decoder_name: str
    decoder_stages: tuple[str, ...]
    decoder_settings: Mapping[str, Any]
    tells_latents: bool

    def draw_reconstructions(
        self, products: Mapping[str, Params], key: Key, data: Data, present: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array] | None]:
        """Decode a posterior sample of float data; return {modality: [B, *shape]}, and the sample.

        The sample, {modality: [B, D_m]}, is in the units of generated latents; None if there are no latents per
        modality. Nothing else of a row may depend on a modality that it lacks, False in `present` [B, M].
        """
