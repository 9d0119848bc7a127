"""Options of diffusion decoders over a trained system."""

from collections.abc import Sequence

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require, unknown
from sbm_jax.networks.codecs.diffusion import check_network_only
from sbm_jax.networks.diffusion_decoder_config import DiffusionDecoderConfig, check_conditions
from sbm_jax.types import CodecConfig, TrainingConfig

CONDITIONS = ("picture", "map", "latent")
"""What a decoder can be conditioned on: the reconstruction, a feature map learned from the latent, or the latent."""


@checked_dataclass
class DiffusionDecodingConfig:
    """Training and sampling of the diffusion decoders.

    Attributes:
      modalities: modelled modalities with a diffusion decoder; () for all images with a Gaussian or Laplace likelihood:
        colour images, not masks.
      condition: one or more of `CONDITIONS`.
      decoder: see `DiffusionDecoderConfig`.
      map_network: codec whose decoder maps the latent to a feature map with `map_channels` channels.
      map_channels: channels of the feature map.
      shared: share one network, conditioned on the modality, among all modalities of the same shape.
      training: see `types.TrainingConfig`.
    """

    modalities: tuple[str, ...] = ()
    condition: tuple[str, ...] = ("picture",)
    decoder: DiffusionDecoderConfig = DiffusionDecoderConfig()
    map_network: CodecConfig = CodecConfig("patch", {"widths": (64, 64)})
    map_channels: int = 8
    shared: bool = True
    training: TrainingConfig = TrainingConfig()

    def __post_init__(self):
        where = "methods.diffusion_decoder"
        check_conditions(self.condition, CONDITIONS, f"{where}.condition")
        require(self.map_channels >= 1, f"{where}.map_channels", self.map_channels, "at least 1")
        check_network_only(self.map_network, f"{where}.map_network")
        steps = self.decoder.likelihood_steps
        require(
            steps == 0,
            f"{where}.decoder.likelihood_steps",
            steps,
            "0: decoders over frozen latents have no likelihood, unlike the codec 'diffusion'",
        )

    def check_modalities(self, names: Sequence[str]) -> None:
        """Raise `SbmError` for a modality that the experiment lacks; see `method.NamesModalities`."""
        for name in self.modalities:
            if name not in names:
                raise unknown("modality (methods.diffusion_decoder.modalities):", name, names)
