"""What MVAE, MMVAE, MoPoE, MVTCAE and MMVAE+ have of their own, and the config of all of them."""

import dataclasses

from sbm_jax.config import checked_dataclass
from sbm_jax.distributions import POSTERIORS
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.systems.sbm import ScoreConfig
from sbm_jax.types import TrainingConfig

ESTIMATORS = ("elbo", "iwae", "dreg")
PRIVATE_PRIORS = ("standard", "own")


@checked_dataclass
class Settings:
    """What a method has of its own.

    Attributes:
      likelihood: of modalities whose data are Gaussian or Laplace; "" for that of each.
      scale: of this likelihood; without one, each modality has its own, which may be learned.
      rescaling: weigh the log likelihood of a modality by the largest number of entries over its own.
      beta: weight of the divergences.
      alpha: of MVTCAE's conditional bounds.
      posterior: of the mixtures of experts, a key of `distributions.POSTERIORS`.
      estimator: ``"elbo"``, ``"iwae"`` or ``"dreg"``.
      num_samples: K, importance samples.
      num_subsets: random subsets of two modalities or more in each step of MVAE.
      latent_size: D; 0 for that of the config.
      private_size: of the latent of each modality, of MMVAE+ and (0 in both variants) MoPoE.
      beta_private: weight of the divergence of MoPoE's, relative to that of the joint latent.
      private_prior: where MMVAE+ draws the private latent of what is not observed: ``"standard"``, the
        prior of the bound, as its authors do, or ``"own"``, the trained one that others are reconstructed with.
    """

    likelihood: str = ""
    scale: float = 0.75
    rescaling: bool = False
    beta: float = 1.0
    alpha: float = 0.0
    posterior: str = "normal"
    estimator: str = "elbo"
    num_samples: int = 1
    num_subsets: int = 0
    latent_size: int = 0
    private_size: int = 0
    beta_private: float = 1.0
    private_prior: str = "standard"

    def __post_init__(self):
        if self.likelihood not in ("", "gaussian", "laplace"):
            raise unknown("likelihood (config.joint_posterior.settings)", self.likelihood, ("gaussian", "laplace"))
        for name, known in (("posterior", POSTERIORS), ("estimator", ESTIMATORS), ("private_prior", PRIVATE_PRIORS)):
            if getattr(self, name) not in known:
                raise unknown(f"{name} (config.joint_posterior.settings)", getattr(self, name), known)
        require(self.scale > 0, "joint_posterior.settings: scale", self.scale, "a positive number")
        require(0 <= self.alpha <= 1, "joint_posterior.settings: alpha", self.alpha, "0 to 1")
        least_values = {
            "beta": 0,
            "beta_private": 0,
            "num_samples": 1,
            "num_subsets": 0,
            "latent_size": 0,
            "private_size": 0,
        }
        for name, least in least_values.items():
            value = getattr(self, name)
            require(value >= least, f"joint_posterior.settings: {name}", value, f"{least} or more")


_MIXTURE = Settings(likelihood="laplace", posterior="laplace_with_softmax", estimator="iwae")
_PRIVATE = dataclasses.replace(_MIXTURE, latent_size=32, private_size=32)

VARIANTS: dict[str, dict[str, Settings]] = {
    "original": {
        "mvae": Settings(likelihood="laplace", num_subsets=1),
        "mmvae": _MIXTURE,
        "mopoe": Settings(likelihood="laplace", beta=2.5),
        "mvtcae": Settings(likelihood="laplace", beta=2.5, alpha=5 / 6),
        "mmvae_plus": dataclasses.replace(_PRIVATE, beta=2.5),
    },
    "sbm_paper": {
        "mvae": Settings(num_subsets=1),
        "mmvae": Settings(beta=2.5),
        "mopoe": Settings(beta=2.5),
        "mvtcae": Settings(beta=0.1, alpha=0.9),
        "mmvae_plus": dataclasses.replace(_PRIVATE, beta=5.0),
    },
}
"""The settings of each method. The original MMVAE has K = 10 to 30 and ``"dreg"``, which `settings` can ask for: every
decoder then decodes M K latents for each row. Annealing of divergences and amsgrad are left out."""

USED = {
    "mvae": ("beta", "num_subsets"),
    "mmvae": ("beta", "posterior", "estimator", "num_samples"),
    "mopoe": ("beta", "private_size", "beta_private"),
    "mvtcae": ("alpha", "beta"),
    "mmvae_plus": ("beta", "posterior", "estimator", "num_samples", "private_size", "private_prior"),
}
"""The settings that each method has, besides `COMMON`."""

COMMON = ("likelihood", "scale", "rescaling", "latent_size")
"""The settings that all methods have."""


@checked_dataclass
class JointPosteriorConfig:
    """The multimodal variational autoencoders.

    Attributes:
      training: see `types.TrainingConfig`.
      network: sizes of the encoders and decoders.
      latent_size: D, of the one latent, where a method has no size of its own.
      variant: a key of `VARIANTS`.
      settings: {method: {field of `Settings`: value}}, where they differ from those of the variant.
      score_prior: the score model of the ``_score`` systems; None without them.
      mixture_components: of the Gaussian mixture of the ``_mixture`` systems.
    """

    training: TrainingConfig
    network: AutoencoderNetworkConfig = AutoencoderNetworkConfig()
    latent_size: int = 64
    variant: str = "original"
    settings: dict = dataclasses.field(default_factory=dict)
    score_prior: ScoreConfig | None = None
    mixture_components: int = 10

    def __post_init__(self):
        for name in ("latent_size", "mixture_components"):
            require(getattr(self, name) >= 1, f"joint_posterior.{name}", getattr(self, name), "at least 1")
        if self.variant not in VARIANTS:
            raise unknown("variant (config.joint_posterior.variant)", self.variant, VARIANTS)
        for method, changes in self.settings.items():
            if method not in VARIANTS[self.variant]:
                raise unknown("method (config.joint_posterior.settings)", method, VARIANTS[self.variant])
            known = (*USED[method], *COMMON)
            for name in changes:
                if name not in known:
                    raise unknown(f"setting of {method}:", name, known)
            unused = _unused(method, self.of(method))
            for name in changes:
                if name in unused:
                    raise SbmError(f"joint_posterior.settings of {method!r}: {name} has no effect {unused[name]}.")

    def of(self, method: str) -> Settings:
        """Return the settings of a method."""
        found = dataclasses.replace(VARIANTS[self.variant][method], **self.settings.get(method, {}))
        if found.estimator == "elbo" and (found.posterior != "normal" or (found.private_size and method != "mopoe")):
            raise SbmError(
                f"joint_posterior.settings of {method!r}: the estimator 'elbo' wants Gaussian posteriors and no "
                "private latents; use 'iwae' or 'dreg'."
            )
        if method == "mmvae_plus":
            require(found.private_size >= 1, "mmvae_plus: private_size", found.private_size, "at least 1")
        return found


def _unused(method: str, settings: Settings) -> dict[str, str]:
    """Return the settings that others make meaningless, and where."""
    unused = {} if settings.likelihood else {"scale": "without a likelihood, for each modality has its own"}
    if method == "mmvae" and settings.estimator == "elbo":
        return unused | {"num_samples": "with the estimator 'elbo'"}
    return unused | ({"beta": f"with the estimator {settings.estimator!r}"} if method == "mmvae" else {})
