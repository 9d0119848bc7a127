"""MVAE, MMVAE, MoPoE, MVTCAE and MMVAE+: variational autoencoders with one latent for all modalities.

They share encoders, decoders and data with the other systems, and differ in how experts are joined to a posterior and
in the bound (`losses.multimodal`). Each is there with the objective of its own paper (``"original"``), and as the
tables of the SBM paper were made (``"sbm_paper"``): Gaussian posteriors and plain bounds but for MMVAE+, which has
private latents besides, and another way to condition MoPoE.

References: M. Wu and N. Goodman, 2018; Y. Shi et al., 2019; T. Sutter et al., 2021; H. Hwang et al., 2021; E. Palumbo
et al., 2023; see `losses.multimodal`.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.config import plain
from sbm_jax.data.pipeline import as_float
from sbm_jax.distributions import POSTERIORS, product_of_experts
from sbm_jax.errors import SbmError, require, unknown
from sbm_jax.losses import multimodal
from sbm_jax.networks.autoencoders import AutoencoderNetworkConfig, Autoencoders
from sbm_jax.sampling import SamplerOptions
from sbm_jax.types import (
    Array,
    Data,
    Dataset,
    Generated,
    Key,
    Metrics,
    Modality,
    Params,
    Split,
    Stage,
    TrainingConfig,
)

ESTIMATORS = ("elbo", "iwae", "dreg")
PRIVATE_PRIORS = ("joint", "own")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a method has of its own.

    Attributes:
      likelihood: of modalities whose data are Gaussian or Laplace; "" for that of each.
      scale: of this likelihood.
      beta: weight of the divergences.
      alpha: of MVTCAE's conditional bounds.
      posterior: of the mixtures of experts, a key of `distributions.POSTERIORS`.
      estimator: ``"elbo"``, ``"iwae"`` or ``"dreg"``.
      num_samples: K, importance samples.
      num_subsets: random subsets of two modalities or more in each step of MVAE.
      latent_size: D; 0 for that of the config.
      private_size: of MMVAE+'s latent of each modality.
      private_prior: where MMVAE+ draws the private latent of what is not observed: ``"joint"``, the prior of the bound,
        as its authors do, or ``"own"``, the trained one that other modalities are reconstructed with.
    """

    likelihood: str = ""
    scale: float = 0.75
    beta: float = 1.0
    alpha: float = 0.0
    posterior: str = "normal"
    estimator: str = "elbo"
    num_samples: int = 1
    num_subsets: int = 0
    latent_size: int = 0
    private_size: int = 0
    private_prior: str = "joint"

    def __post_init__(self):
        if self.likelihood not in ("", "gaussian", "laplace"):
            raise unknown("likelihood (config.joint_posterior.settings)", self.likelihood, ("gaussian", "laplace"))
        for name, known in (("posterior", POSTERIORS), ("estimator", ESTIMATORS), ("private_prior", PRIVATE_PRIORS)):
            if getattr(self, name) not in known:
                raise unknown(f"{name} (config.joint_posterior.settings)", getattr(self, name), known)
        for name, least in (("beta", 0), ("num_samples", 1), ("num_subsets", 0), ("latent_size", 0)):
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
    "mopoe": ("beta",),
    "mvtcae": ("alpha", "beta"),
    "mmvae_plus": ("beta", "posterior", "estimator", "num_samples", "private_size", "private_prior"),
}
"""The settings that each method has, besides ``likelihood``, ``scale`` and ``latent_size``."""


@dataclasses.dataclass(frozen=True)
class JointPosteriorConfig:
    """The multimodal variational autoencoders.

    Attributes:
      training: see `types.TrainingConfig`.
      network: sizes of the encoders and decoders.
      latent_size: D, of the one latent, where a method has no size of its own.
      variant: a key of `VARIANTS`.
      settings: {method: {field of `Settings`: value}}, where they differ from those of the variant.
    """

    training: TrainingConfig
    network: AutoencoderNetworkConfig = AutoencoderNetworkConfig()
    latent_size: int = 64
    variant: str = "original"
    settings: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        require(self.latent_size >= 1, "joint_posterior.latent_size", self.latent_size, "at least 1")
        if self.variant not in VARIANTS:
            raise unknown("variant (config.joint_posterior.variant)", self.variant, VARIANTS)
        for method, changes in self.settings.items():
            if method not in VARIANTS[self.variant]:
                raise unknown("method (config.joint_posterior.settings)", method, VARIANTS[self.variant])
            known = (*USED[method], "likelihood", "scale", "latent_size")
            for name in changes:
                if name not in known:
                    raise unknown(f"setting of {method}:", name, known)
            self.of(method)

    def of(self, method: str) -> Settings:
        """Return the settings of a method."""
        found = dataclasses.replace(VARIANTS[self.variant][method], **self.settings.get(method, {}))
        if found.estimator == "elbo" and (found.posterior != "normal" or found.private_size):
            raise SbmError(
                f"joint_posterior.settings of {method!r}: the estimator 'elbo' wants Gaussian posteriors and no "
                "private latents; use 'iwae' or 'dreg'."
            )
        return found


@dataclasses.dataclass(frozen=True)
class JointPosterior:
    """A variational autoencoder with one latent for all modalities.

    Attributes:
      name: the method, a key of `VARIANTS`.
      modalities: M modalities, in the order of every mask.
      config: see `JointPosteriorConfig`.
      seed: the run's seed, part of the stage's fingerprint.
      batched: compute modalities of equal shape by one `vmap` (see `PerModality`); None for all but CPU.
    """

    name: str
    modalities: tuple[Modality, ...]
    config: JointPosteriorConfig
    seed: int = 0
    batched: bool | None = None

    @property
    def settings(self) -> Settings:
        """What the method has of its own."""
        return self.config.of(self.name)

    @property
    def sizes(self) -> tuple[int, int]:
        """The sizes of the joint latent and of the private one of each modality."""
        return self.settings.latent_size or self.config.latent_size, self.settings.private_size

    @property
    def decoded_modalities(self) -> tuple[Modality, ...]:
        """The modalities with the size of what they are decoded from, and the likelihood of the config."""
        own = self.settings
        changes = {"likelihood": own.likelihood, "scale": own.scale} if own.likelihood else {}
        return tuple(
            dataclasses.replace(
                modality,
                latent_size=sum(self.sizes),
                **(changes if modality.likelihood in ("gaussian", "laplace") else {}),
            )
            for modality in self.modalities
        )

    @property
    def autoencoders(self) -> Autoencoders:
        """The encoders and decoders of all modalities."""
        batched = jax.default_backend() != "cpu" if self.batched is None else self.batched
        return Autoencoders(self.decoded_modalities, self.config.network, batched)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The name of the one stage."""
        return (self.name,)

    def check(self, options: SamplerOptions) -> None:
        """Raise `SbmError` for what can not work, by tracing shapes: nothing is computed."""
        del options
        jax.eval_shape(self._init, jax.random.key(0))

    # MARK: Training

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the stage that trains everything."""
        stage = Stage(
            name=self.name,
            settings={
                "seed": self.seed,
                "data": dataset.settings,
                "modalities": plain(self.modalities),
                "joint_posterior": {**plain(self.config), "settings": plain(self.settings)},
            },
            init=lambda key, upstream: self._init(key),
            loss=self._loss,
            rows=lambda upstream: self._rows(dataset.train),
            validation_rows=lambda upstream: self._rows(dataset.validation),
            training=self.config.training,
        )
        return [stage]

    def _rows(self, split: Split) -> dict[str, np.ndarray]:
        return {modality.name: split.data[modality.name] for modality in self.modalities}

    def _init(self, key: Key) -> Params:
        size, private_size = self.sizes
        params = {"autoencoders": self.autoencoders.init(key), "prior": jnp.zeros(size)}
        return params | ({"private_priors": jnp.zeros((len(self.modalities), private_size))} if private_size else {})

    def _loss(self, params: Params, upstream: Mapping[str, Params], key: Key, batch: Data) -> tuple[Array, Metrics]:
        del upstream
        terms = self.terms(params, key, as_float(batch))
        if isinstance(terms, multimodal.BoundTerms):
            parts = {"reconstruction": terms.reconstruction.mean(), "regulariser": terms.regulariser.mean()}
            return terms.loss.mean(), parts
        return terms.mean(), {}

    def terms(
        self, params: Params, key: Key, data: Data, present: Array | None = None
    ) -> multimodal.BoundTerms | Array:
        """Return the per-row terms of the objective, or the per-row loss [B] of an importance-weighted one.

        Args:
          params: of the stage.
          key: for the noise and the subsets.
          data: {modality: float [B, *shape]}; what a row lacks may be anything finite.
          present: bool [B, M]; None where nothing is missing.
        """
        settings, experts = self.settings, self._experts(params, data)
        decoding = self._decoding(params, data)
        noise_key, subset_key = jax.random.split(key)
        batch, num_modalities, size = len(experts[0]), len(self.modalities), self.sizes[0]
        if self.name == "mvae":
            subsets = jnp.concatenate(
                [
                    jnp.ones((1, num_modalities), bool),
                    jnp.eye(num_modalities, dtype=bool),
                    _random_subsets(subset_key, settings.num_subsets, num_modalities),
                ]
            )
            noise = jax.random.normal(noise_key, (len(subsets), batch, size))
            own = self.config.variant == "original"
            return multimodal.mvae_terms(*experts, decoding, noise, subsets, settings.beta, present, own)
        if self.name == "mvtcae":
            noise = jax.random.normal(noise_key, (batch, size))
            return multimodal.mvtcae_terms(*experts, decoding, noise, settings.alpha, settings.beta, present)
        if settings.estimator == "elbo":
            subsets = self._subsets()
            at_hand = jnp.ones((batch, len(subsets)), bool)
            if present is not None:
                at_hand = multimodal.subsets_at_hand(subsets, present)
            chosen = jax.random.categorical(subset_key, jnp.where(at_hand, 0.0, -jnp.inf))
            noise = jax.random.normal(noise_key, (batch, size))
            return multimodal.mopoe_terms(*experts, decoding, noise, chosen, settings.beta, present, subsets)
        family = multimodal.Family(settings.posterior, settings.estimator)
        if self.name == "mmvae":
            noise = self._noise(noise_key, (num_modalities, settings.num_samples, batch, size))
            return multimodal.mmvae_terms(*experts, decoding, noise, params["prior"], family, present)
        noise = [
            self._noise(jax.random.fold_in(noise_key, i), (settings.num_samples, batch, entries))
            for i, entries in enumerate([size, *[self.sizes[1]] * num_modalities] * num_modalities)
        ]
        (mean, own_mean), (raw, own_raw) = (jnp.split(array, [size], axis=-1) for array in experts)
        priors = params["private_priors"]
        return multimodal.mmvae_plus_terms(
            mean, raw, own_mean, own_raw, decoding, noise, priors, settings.beta, family, present
        )

    def _subsets(self) -> np.ndarray:
        """Return the subsets whose products are mixed, bool [S, M]."""
        if self.name == "mopoe":
            return multimodal.all_subsets(len(self.modalities))
        return np.eye(len(self.modalities), dtype=bool)

    def _noise(self, key: Key, shape: tuple[int, ...]) -> Array:
        if POSTERIORS[self.settings.posterior].noise == "uniform":
            return jax.random.uniform(key, shape, minval=-1.0 + 1e-6, maxval=1.0)
        return jax.random.normal(key, shape)

    def _experts(self, params: Params, data: Data) -> tuple[Array, Array]:
        """Return means and raw scales [B, M, D], private ones after the joint; 0 for what is not in `data`."""
        encoded = self.autoencoders.encode(params["autoencoders"], data)
        batch = len(next(iter(data.values())))
        nothing = (jnp.zeros((batch, sum(self.sizes))),) * 2
        found = [encoded.get(modality.name, nothing) for modality in self.modalities]
        return jnp.stack([mean for mean, _ in found], axis=1), jnp.stack([raw for _, raw in found], axis=1)

    def _decoding(self, params: Params, data: Data) -> multimodal.Decoding:
        factors = (1.0,) * len(self.modalities)
        decode = lambda latents: self.autoencoders.decode(params["autoencoders"], latents)  # noqa: E731
        return multimodal.Decoding(self.decoded_modalities, decode, data, factors)

    # MARK: Use

    def generate(
        self,
        products: Mapping[str, Params],
        key: Key,
        data: Data,
        observed: Array,
        options: SamplerOptions,
        num_samples: int = 1,
        *,
        strength: Array | float | None = None,
        num_free: int | None = None,
    ) -> Generated:
        """Generate what is not observed, from the posterior given what is; see `types.System.generate`.

        Raises:
          SbmError: on data of a modality that the system does not have, or a strength, for nothing is guided.
        """
        del options, num_free
        if strength is not None:
            raise SbmError(f"system {self.name!r} has no guidance; leave out strength, or use a system with guidance.")
        names = [modality.name for modality in self.modalities]
        for name in data:
            if name not in names:
                raise unknown("modality", name, names)
        batch = len(next(iter(data.values()))) if data else (len(observed) if jnp.ndim(observed) == 2 else 1)
        observed = jnp.asarray(observed).reshape(-1, len(names)) & jnp.array([[name in data for name in names]])
        observed = jnp.broadcast_to(observed, (batch, len(names)))
        params = products[self.name]
        latents = self._sample(params, key, data, observed, num_samples)
        decoded = self.autoencoders.decode_mean(
            params["autoencoders"], {name: z.reshape(-1, z.shape[-1]) for name, z in latents.items()}
        )
        samples = {name: array.reshape(batch, num_samples, *array.shape[1:]) for name, array in decoded.items()}
        for i, name in enumerate(names):
            if name in data:
                mask = observed[:, i].reshape((batch,) + (1,) * (samples[name].ndim - 1))
                samples[name] = jnp.where(mask, data[name][:, None], samples[name])
        finite = jnp.stack([jnp.isfinite(z).all(axis=-1) for z in latents.values()]).all(axis=0)
        return Generated(samples, None, {"network_evaluations": jnp.zeros(()), "diverged": (~finite).sum()})

    def _sample(self, params: Params, key: Key, data: Data, observed: Array, num_samples: int) -> dict[str, Array]:
        """Return what is decoded, {name: [B, S, D]}, given what is observed, bool [B, M]; nothing: from the prior."""
        joint_key, private_key = jax.random.split(key)
        z, experts = self._sample_joint(params, joint_key, data, observed, num_samples)
        size, private_size = self.sizes
        if not private_size:
            return {modality.name: z for modality in self.modalities}
        posterior, own = POSTERIORS[self.settings.posterior], self.settings.private_prior == "own"
        latents, shape = {}, (*z.shape[:-1], private_size)
        for i, modality in enumerate(self.modalities):
            # One private latent for all modalities where it comes from the joint prior.
            noise = self._noise(jax.random.fold_in(private_key, i if own else 0), shape)
            raw = params["private_priors"][i] if own else jnp.zeros(private_size)
            private = posterior.sample(jnp.zeros(shape), jnp.broadcast_to(posterior.scale(raw), shape), noise)
            if experts is not None:
                mean, raw = (array[:, None, i, size:] for array in experts)
                given = posterior.sample(mean, posterior.scale(raw), noise)
                private = jnp.where(observed[:, i, None, None], given, private)
            latents[modality.name] = jnp.concatenate([z, private], axis=-1)
        return latents

    def _sample_joint(
        self, params: Params, key: Key, data: Data, observed: Array, num_samples: int
    ) -> tuple[Array, tuple[Array, Array] | None]:
        """Return joint latents [B, S, D], and the experts of what is in `data`."""
        batch, num_modalities = observed.shape
        shape, posterior = (batch, num_samples, self.sizes[0]), POSTERIORS[self.settings.posterior]
        choose_key, noise_key = jax.random.split(key)
        noise = self._noise(noise_key, shape)
        prior = posterior.sample(jnp.zeros(shape), jnp.broadcast_to(posterior.scale(params["prior"]), shape), noise)
        if not data:
            return prior, None
        experts = self._experts(params, data)
        # Unobserved data may be anything, and count for nothing.
        mean, raw = (jnp.where(observed[..., None], array, 0.0)[..., : self.sizes[0]] for array in experts)
        members = jnp.broadcast_to(observed[:, None], (batch, num_samples, num_modalities))
        if self.name in ("mmvae", "mmvae_plus") or (self.name == "mopoe" and self.config.variant == "sbm_paper"):
            # A mixture: of the experts that are observed, or of the products of their subsets.
            subsets = self._subsets()
            at_hand = multimodal.subsets_at_hand(subsets, observed)
            logits = jnp.where(at_hand | ~at_hand.any(axis=1, keepdims=True), 0.0, -jnp.inf)
            chosen = jax.random.categorical(choose_key, logits[:, None], shape=(batch, num_samples))
            members = members & jnp.asarray(subsets)[chosen]
        if self.settings.posterior != "normal":  # one expert for each sample
            expert = jnp.argmax(members, axis=-1)[..., None]
            location, scale = (jnp.take_along_axis(array, expert, axis=1) for array in (mean, posterior.scale(raw)))
            z = posterior.sample(location, scale, noise)
        else:
            location, log_variance = product_of_experts(
                mean[:, None], raw[:, None], members, eps=self._eps, prior=self._prior_is_expert(members)
            )
            z = location + jnp.exp(0.5 * log_variance) * noise
        return jnp.where(observed.any(axis=1)[:, None, None], z, prior), experts

    @property
    def _eps(self) -> float:
        return 0.0 if self.name == "mvae" else multimodal.EXPERT_EPS

    def _prior_is_expert(self, members: Array) -> Array:
        """Return bool [...] for subsets [..., M]: whether N(0, I) is one more expert of their products."""
        if self.name == "mvae":
            return jnp.ones(members.shape[:-1], bool)
        return members.all(axis=-1) if self.name == "mopoe" else jnp.zeros(members.shape[:-1], bool)

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return what is decoded from the posterior means given all of float data; a mixture's from the own expert."""
        params = products[self.name]
        mean, raw = self._experts(params, data)
        if self.name in ("mmvae", "mmvae_plus"):
            latents = {modality.name: mean[:, i] for i, modality in enumerate(self.modalities)}
        else:
            members = jnp.ones(mean.shape[:2], bool)
            joint, _ = product_of_experts(mean, raw, members, self._eps, self._prior_is_expert(members))
            latents = {modality.name: joint for modality in self.modalities}
        return self.autoencoders.decode_mean(params["autoencoders"], latents)


def _random_subsets(key: Key, number: int, num_modalities: int) -> Array:
    """Return bool [number, M]: of sizes uniform in 2 to M - 1, and uniform for each size; all where M is below 3."""
    size_key, order_key = jax.random.split(key)
    if num_modalities < 3:
        return jnp.ones((0, num_modalities), bool)
    sizes = jax.random.randint(size_key, (number, 1), 2, num_modalities)
    order = jnp.argsort(jax.random.uniform(order_key, (number, num_modalities)), axis=1)
    return order < sizes
