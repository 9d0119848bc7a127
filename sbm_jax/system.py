"""What a system is, what it generates, and what only some systems can do.

Shape letters are those of `types`.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from sbm_jax.types import Array, Data, Dataset, Key, Modality, Params, Stage


class Generated(NamedTuple):
    """What a system generates.

    Attributes:
      data: {modality: [B, S, *shape]}; observed modalities come back unchanged.
      latents: {modality: [B, S, D_m]}, or None where a system has no latents per modality.
      info: scalars: ``network_evaluations`` per sample, ``diverged`` rows, and, where pictures are drawn step by step,
        ``decoder_evaluations`` of each.
    """

    data: dict[str, Array]
    latents: dict[str, Array] | None
    info: dict[str, Array]


class System(Protocol):
    """One row of a results table: named training stages, and pure functions of their products.

    What only some systems can do is said by `Encodes`, `HasLikelihood`, `HasCodecs`, `Reconstructs` and
    `SparesObserved`.

    Attributes:
      name: the row.
      modalities: M modalities, in the order of every mask.
      stage_names: the names of the stages with the products that its functions use.
    """

    name: str
    modalities: tuple[Modality, ...]
    stage_names: tuple[str, ...]

    def check(self, options: Any) -> None:
        """Raise `SbmError` for what can not work with these sampler options, before anything is trained."""

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the training stages in an order in which each follows those it requires."""

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
        """Generate what is not observed.

        Args:
          products: the stages' products by stage name.
          key: a typed key.
          data: {modality: [B, *shape]}; what is unobserved is ignored and may be left out.
          observed: bool [B, M] or [M], True = given; what is not in `data` counts as not given.
          options: the sampler's options.
          num_samples: S, samples per row.
          strength: of the guidance, a number or one for each row [B]; None for the system's own.

        Raises:
          SbmError: on data of an unknown modality, a wrong shape, or a strength where there is no guidance.
        """

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return what the system makes of float data that it is given whole, {modality: [B, *shape]}."""


@runtime_checkable
class Encodes(Protocol):
    """A system with latents of each modality."""

    def encode(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return the latents {modality: [B, D_m]} of float data, in the units of generated ones."""


@runtime_checkable
class HasLikelihood(Protocol):
    """A system that may bound the likelihood of data.

    Attributes:
      has_likelihood: whether it does so as it is configured; guidance, for one, changes the law.
      has_costly_density: whether one log weight for each row is all to ask for, and only their mean means something: it
        takes many evaluations of a network, or is itself the estimate of a bound.
    """

    has_likelihood: bool
    has_costly_density: bool

    def log_weights(self, products: Mapping[str, Params], key: Key, data: Data, num_samples: int) -> Array:
        """Return log p(x, z_s) - log q(z_s | x) [B, S] of posterior samples given all of float data, in nats."""


@runtime_checkable
class SparesObserved(Protocol):
    """A system that need not compute what is observed, where it is known how much that is."""

    def with_free(self, number: int) -> System:
        """Return the system for rows with at most so many unobserved modalities: the same samples, in less time."""


@runtime_checkable
class HasCodecs(Protocol):
    """A system whose modalities have codecs of their own."""

    def posteriors(self, products: Mapping[str, Params], data: Data) -> dict[str, tuple[Array, Array | None]]:
        """Return the codecs' {modality: (mean, log variance)}, both [B, D_m], of float data, in the codecs' units.

        The log variance is None of a codec that is deterministic.
        """

    def codec_reconstructions(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return what the codecs alone make of the means of their posteriors, {modality: [B, *shape]}."""

    def save_codec(self, products: Mapping[str, Params], name: str, path: str | os.PathLike[str]) -> None:
        """Write the trained codec of a modality to a file, which a modality's `codec.weights` may name."""


@runtime_checkable
class Reconstructs(Protocol):
    """A system whose reconstructions a diffusion decoder may be told of.

    Attributes:
      decoder_name: of what reconstructs, the same for systems that share it.
      decoder_stages: the names of the stages with the products that it uses.
      decoder_settings: how it draws what it reconstructs, as JSON values, beyond what its stages tell; {} for means.
      tells_latents: whether there are latents of each modality.
    """

    decoder_name: str
    decoder_stages: tuple[str, ...]
    decoder_settings: Mapping[str, Any]
    tells_latents: bool

    def draw_reconstructions(
        self, products: Mapping[str, Params], key: Key, data: Data, present: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array] | None]:
        """Return what decoders make of a posterior sample of float data, {modality: [B, *shape]}, and the sample.

        The sample, {modality: [B, D_m]}, is in the units of generated latents; None where there is none of each
        modality. Of what a row lacks, False in `present` [B, M], nothing else of the row may depend.
        """
