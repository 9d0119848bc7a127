"""MLD: deterministic autoencoders, and a masked diffusion of their latents with a time for each modality.

In training and sampling, observed modalities are clean and the network receives time 0 for them. MLD differs from this
package's SBM-RAE in its unregularised autoencoders, its network and its distribution of observed sets.

It differs from the authors' code in three ways: observed sets are drawn per row rather than per batch, and by size
first rather than uniformly; latents are standardised by the moments of all training rows rather than of the first
batch; and the network predicts the velocity by default, from which the noise follows: the loss is the same, and
sampling needs few steps.

Reference: M. Bounoua, G. Franzese and P. Michiardi, "Multi-modal Latent Diffusion", 2024.
  https://arxiv.org/abs/2306.04445
"""

import dataclasses

from sbm_jax.config import checked_dataclass
from sbm_jax.errors import require, unknown
from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.sampling import SamplerOptions
from sbm_jax.sde import SDEConfig
from sbm_jax.systems.method import Method, Shared
from sbm_jax.systems.sbm import Sbm, fields_of
from sbm_jax.systems.score_stage import SbmConfig, ScoreConfig
from sbm_jax.systems.unimodal import AutoencoderConfig
from sbm_jax.types import Modality, TrainingConfig

_EULER = SamplerOptions(solver="euler_maruyama", num_steps=250, grid="uniform", end_time=1e-3)

SAMPLERS: dict[str, SamplerOptions | None] = {
    "shared": None,
    "euler": _EULER,
    "repaint": dataclasses.replace(_EULER, resampling=10, resampling_length=10),
}
"""``"shared"`` is the experiment's sampler. ``"repaint"``, the authors' own, repeats every ten steps ten times: 2,500
evaluations here and 2,410 in their code, which takes the first ten steps only once."""


@checked_dataclass
class MldConfig:
    """Options of MLD's diffusion.

    Attributes:
      training: see `types.TrainingConfig`.
      network: architecture and size of the score network; the authors' own is ``"mlp_unet"``.
      prediction: what the network predicts, one of `parameterization.PREDICTIONS`; ``"noise"`` in the authors' code.
      probability_observed: d, probability that a training row has observed modalities; the authors use 0.2 to 0.8.
      sampler: a key of `SAMPLERS`.
    """

    training: TrainingConfig = TrainingConfig()
    network: ScoreNetworkConfig = ScoreNetworkConfig(name="mlp_unet", width=512, depth=2)
    prediction: str = "velocity"
    probability_observed: float = 0.5
    sampler: str = "shared"

    def __post_init__(self):
        require(
            0 <= self.probability_observed <= 1, "methods.mld.probability_observed", self.probability_observed, "0 to 1"
        )
        if self.sampler not in SAMPLERS:
            raise unknown("sampler (config.methods.mld.sampler)", self.sampler, SAMPLERS)


@dataclasses.dataclass(frozen=True)
class Mld(Sbm):
    """MLD, as an SBM with its own autoencoders, diffusion and sampler."""

    mld: MldConfig = MldConfig()

    @property
    def score_stage_name(self) -> str:
        """The name of the stage that trains the diffusion."""
        return "score_mld"

    def own_options(self, options: SamplerOptions) -> SamplerOptions:
        """Return the system's own sampler, with the given `unroll`, `chunk_size` and `divergence_bound`."""
        own = SAMPLERS[self.mld.sampler]
        if own is None:  # time 0 tells the network which modalities are observed
            return dataclasses.replace(options, conditioning="per_modality")
        kept = {name: getattr(options, name) for name in ("unroll", "chunk_size", "divergence_bound")}
        return dataclasses.replace(own, **kept)


def mld_parts(autoencoder: AutoencoderConfig, mld: MldConfig) -> SbmConfig:
    """Return the configs of both stages: unregularised latents, and the noise-prediction loss."""
    free = dataclasses.replace(autoencoder, rae_beta=0.0, rae_noise=0.0, alignment=0.0)
    score = ScoreConfig(
        training=mld.training,
        network=mld.network,
        sde=SDEConfig("vp", beta_min=0.1, beta_max=20.0),
        prediction=mld.prediction,
        weighting="noise",
        probability_none=1.0 - mld.probability_observed,
    )
    return SbmConfig(free, score)


def _free(modalities: tuple[Modality, ...]) -> tuple[Modality, ...]:
    """Return the modalities without their own regularisers."""
    codecs = [dataclasses.replace(modality.codec, rae_beta=None, rae_noise=None) for modality in modalities]
    return tuple(dataclasses.replace(m, codec=codec) for m, codec in zip(modalities, codecs, strict=True))


def _make(name: str, shared: Shared, mld: MldConfig) -> Mld:
    shared = dataclasses.replace(shared, modalities=_free(shared.modalities), encoded=_free(shared.encoded))
    fields = {**fields_of(name, shared), "config": mld_parts(shared.autoencoder, mld), "regularised": True}
    return Mld(**fields, mld=mld)


METHODS = (Method("mld", _make, {"mld": MldConfig}),)
