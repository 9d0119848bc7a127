"""MVAE, MMVAE, MoPoE, MVTCAE and MMVAE+: variational autoencoders with one latent for all modalities.

They share encoders, decoders and data with the other systems, and differ in how experts are joined to a posterior and
in the bound (`losses.multimodal`). Each is there with the objective of its own paper (``"original"``), and as the
tables of the SBM paper were made (``"sbm_paper"``): Gaussian posteriors and plain bounds but for MMVAE+, which has
private latents besides; MoPoE is conditioned by the mixture of all subsets of what is observed, and MVAE's prior is no
expert beside a single one.

References: M. Wu and N. Goodman, 2018; Y. Shi et al., 2019; T. Sutter et al., 2021; H. Hwang et al., 2021; E. Palumbo
et al., 2023; see `losses.multimodal`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.config import plain
from sbm_jax.data.pipeline import as_float
from sbm_jax.distributions import POSTERIORS, Posterior, product_of_experts
from sbm_jax.errors import SbmError
from sbm_jax.losses import multimodal
from sbm_jax.networks.autoencoders import Autoencoders
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.joint_posterior_config import JointPosteriorConfig, Settings
from sbm_jax.systems.observed import observed_rows, put_back
from sbm_jax.types import Array, Data, Dataset, Generated, Key, Metrics, Modality, Params, Split, Stage


class Latents(NamedTuple):
    """S latents of each of B rows.

    Attributes:
      joint: of all modalities [B, S, D].
      private: of each modality [B, S, M, D'], D' = 0 for a method without any.
    """

    joint: Array
    private: Array


@dataclasses.dataclass(frozen=True)
class JointPosterior:
    """A variational autoencoder with one latent for all modalities.

    Attributes:
      name: the row of the results table; here the method, a key of `joint_posterior_config.VARIANTS`.
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
    def method(self) -> str:
        """The method, a key of `joint_posterior_config.VARIANTS`, and the name of the stage that trains it."""
        return self.name

    @property
    def settings(self) -> Settings:
        """What the method has of its own."""
        return self.config.of(self.method)

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
                num_tokens=1,
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
        return (self.method,)

    @property
    def posterior(self) -> Posterior:
        """The family of the experts."""
        return POSTERIORS[self.settings.posterior]

    def check(self, options: SamplerOptions) -> None:
        """Raise `SbmError` for what can not work, by tracing shapes: nothing is computed."""
        del options
        params = jax.eval_shape(self._init, jax.random.key(0))
        data = {modality.name: jnp.zeros((1, *modality.shape)) for modality in self.modalities}
        jax.eval_shape(lambda params: self.terms(params, jax.random.key(0), data), params)

    # MARK: Training

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the stage that trains everything."""
        own = plain(self.settings)
        del own["private_prior"]  # of generation only
        config = self.config
        stage = Stage(
            name=self.method,
            settings={
                "seed": self.seed,
                "data": dataset.settings,
                "modalities": plain(self.modalities),
                "network": plain(config.network),
                "training": plain(config.training),
                "variant": config.variant,
                "latent_size": self.sizes[0],
                "settings": own,
            },
            init=lambda key, upstream: self._init(key),
            loss=self._loss,
            rows=lambda upstream: self.rows(dataset.train),
            validation_rows=lambda upstream: self.rows(dataset.validation),
            training=self.config.training,
        )
        return [stage]

    def rows(self, split: Split) -> dict[str, Any]:
        """Return what the stage is trained on; see `types.Split.rows`."""
        return split.rows([modality.name for modality in self.modalities])

    def _init(self, key: Key) -> Params:
        size, private_size = self.sizes
        params = {"autoencoders": self.autoencoders.init(key), "prior": jnp.zeros(size)}
        if self.is_mixture and private_size:
            params["private_priors"] = jnp.zeros((len(self.modalities), private_size))
        return params

    def _loss(
        self, params: Params, upstream: Mapping[str, Params], key: Key, batch: Mapping[str, Any]
    ) -> tuple[Array, Metrics]:
        del upstream
        terms = self.terms(params, key, as_float(batch["data"]), batch.get("present"))
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
        if self.method == "mvae":
            fixed = np.concatenate([np.ones((1, num_modalities), bool), np.eye(num_modalities, dtype=bool)])
            subsets = [*fixed, *_random_subsets(subset_key, settings.num_subsets, num_modalities)]
            noise = jax.random.normal(noise_key, (len(subsets), batch, size))
            own = self.config.variant == "original"
            return multimodal.mvae_terms(*experts, decoding, noise, subsets, settings.beta, present, own)
        if self.method == "mvtcae":
            noise = jax.random.normal(noise_key, (batch, size))
            return multimodal.mvtcae_terms(*experts, decoding, noise, settings.alpha, settings.beta, present)
        if settings.estimator == "elbo":
            subsets = self._subsets()
            at_hand = jnp.ones((batch, len(subsets)), bool)
            if present is not None:
                at_hand = multimodal.subsets_at_hand(subsets, present)
            chosen = jax.random.categorical(subset_key, jnp.where(at_hand, 0.0, -jnp.inf))
            joint, own = zip(*(jnp.split(array, [size], axis=-1) for array in experts), strict=True)
            noise, private = jax.random.normal(noise_key, (batch, size)), None
            if settings.private_size:
                own_noise = jax.random.normal(jax.random.fold_in(noise_key, 1), jnp.moveaxis(own[0], 1, 0).shape)
                private = multimodal.PrivateLatents(*own, own_noise, settings.beta_private)
            return multimodal.mopoe_terms(
                *joint, decoding, noise, chosen, settings.beta, present, subsets, private=private
            )
        family = multimodal.Family(settings.posterior, settings.estimator)
        if self.method == "mmvae":
            noise = self.noise(noise_key, (num_modalities, settings.num_samples, batch, size))
            return multimodal.mmvae_terms(*experts, decoding, noise, params["prior"], family, present)
        noise = [
            self.noise(jax.random.fold_in(noise_key, i), (settings.num_samples, batch, entries))
            for i, entries in enumerate([size, *[self.sizes[1]] * num_modalities] * num_modalities)
        ]
        (mean, own_mean), (raw, own_raw) = (jnp.split(array, [size], axis=-1) for array in experts)
        priors = params["private_priors"]
        return multimodal.mmvae_plus_terms(
            mean, raw, own_mean, own_raw, decoding, noise, priors, settings.beta, family, present
        )

    def _subsets(self) -> np.ndarray:
        """Return the subsets whose products are mixed, bool [S, M]."""
        if self.method == "mopoe":
            return multimodal.all_subsets(len(self.modalities))
        return np.eye(len(self.modalities), dtype=bool)

    def noise(self, key: Key, shape: tuple[int, ...]) -> Array:
        """Return the noise that the experts' `Posterior.sample` takes."""
        if self.posterior.noise == "uniform":
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
        def decode(latents: Mapping[str, Array]) -> dict[str, Array]:
            return self.autoencoders.decode(params["autoencoders"], latents)

        factors = multimodal.likelihood_rescaling(self.modalities) if self.settings.rescaling else None
        return multimodal.Decoding(self.decoded_modalities, decode, data, factors or (1.0,) * len(self.modalities))

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
          SbmError: on data of an unknown modality, a wrong shape, or a strength, for nothing is guided.
        """
        if strength is not None:
            raise SbmError(f"system {self.name!r} has no guidance; leave out strength, or use a system with guidance.")
        observed = observed_rows(data, observed, self.modalities)
        prior_key, key = jax.random.split(key)
        params, evaluations, latents = products[self.method], jnp.zeros(()), None
        if not data or num_free is None or num_free == len(self.modalities):

            def from_prior() -> tuple[Latents, Array]:
                found, cost = self._sample_prior(products, prior_key, len(observed), num_samples, options)
                return found, jnp.asarray(cost, jnp.float32)

            def nothing() -> tuple[Latents, Array]:
                return jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), jax.eval_shape(from_prior))

            # Where all rows have something, a score model is spared.
            latents, evaluations = jax.lax.cond(observed.any(axis=1).all(), nothing, from_prior)
        if data:
            given = self._sample_posterior(params, key, self._experts(params, data), observed, num_samples)
            if latents is not None:
                any_given = observed.any(axis=1)[:, None, None]
                given = Latents(
                    jnp.where(any_given, given.joint, latents.joint),
                    jnp.where(any_given[..., None], given.private, latents.private),
                )
            latents = given
        inputs = {name: z.reshape(-1, z.shape[-1]) for name, z in self._decoder_inputs(latents).items()}
        samples = self.autoencoders.decode_mean(params["autoencoders"], inputs)
        finite = jnp.stack([jnp.isfinite(z).all(axis=-1) for z in inputs.values()]).all(axis=0)
        return Generated(
            data=put_back(samples, data, observed, self.modalities),
            latents=None,
            info={"network_evaluations": evaluations, "diverged": (~finite).sum()},
        )

    def _decoder_inputs(self, latents: Latents) -> dict[str, Array]:
        """Return what each modality is decoded from, {name: [B, S, D + D']}."""
        private = jnp.moveaxis(latents.private, 2, 0)
        return {
            modality.name: jnp.concatenate([latents.joint, own], axis=-1)
            for modality, own in zip(self.modalities, private, strict=True)
        }

    def _sample_prior(
        self, products: Mapping[str, Params], key: Key, batch: int, num_samples: int, options: SamplerOptions
    ) -> tuple[Latents, Array]:
        """Return latents that know of no data, and the network evaluations for each."""
        del options
        joint_key, private_key = jax.random.split(key)
        params, shape = products[self.method], (batch, num_samples, self.sizes[0])
        joint = self._from_prior(joint_key, params["prior"], shape)
        return Latents(joint, self._unknown_private(params, private_key, batch, num_samples)), jnp.zeros(())

    def _from_prior(self, key: Key, raw: Array, shape: tuple[int, ...]) -> Array:
        scale = jnp.broadcast_to(self.posterior.scale(raw), shape)
        return self.posterior.sample(jnp.zeros(shape), scale, self.noise(key, shape))

    def _unknown_private(self, params: Params, key: Key, batch: int, num_samples: int) -> Array:
        """Return private latents [B, S, M, D'] of what is not observed: one for all modalities, or one of each."""
        num_modalities, size = len(self.modalities), self.sizes[1]
        if not size:
            return jnp.zeros((batch, num_samples, num_modalities, 0))
        if not self.is_mixture:
            return jax.random.normal(key, (batch, num_samples, num_modalities, size))
        if self.settings.private_prior == "own":
            return self._from_prior(key, params["private_priors"], (batch, num_samples, num_modalities, size))
        shape = (batch, num_samples, 1, size)
        return jnp.broadcast_to(
            self._from_prior(key, jnp.zeros(size), shape), (batch, num_samples, num_modalities, size)
        )

    def _sample_posterior(
        self, params: Params, key: Key, experts: tuple[Array, Array], observed: Array, num_samples: int
    ) -> Latents:
        """Return latents given what is observed, bool [B, M]; those of rows without anything mean nothing."""
        mixes = self.is_mixture or (self.method == "mopoe" and self.config.variant == "sbm_paper")
        choose_key, noise_key, own_key, unknown_key = jax.random.split(key, 4)
        location, scale = self._joint_posterior(choose_key, experts, observed, num_samples, mixes)
        joint = self.posterior.sample(location, scale, self.noise(noise_key, location.shape))
        private = self._unknown_private(params, unknown_key, len(observed), num_samples)
        if private.shape[-1]:
            own = self._sample_private(own_key, experts, num_samples)
            private = jnp.where(observed[:, None, :, None], own, private)
        return Latents(joint, private)

    def _joint_posterior(
        self, key: Key, experts: tuple[Array, Array], observed: Array, num_samples: int, mixes: bool
    ) -> tuple[Array, Array]:
        """Return location and scale [B, S, D] of joint latents given what is observed, bool [B, M].

        Args:
          key: chooses the component of a mixture.
          experts: see `_experts`; those of unobserved data may be anything.
          observed: bool [B, M].
          num_samples: S.
          mixes: take one of the products of `_subsets` for each sample, not that of all that is observed.
        """
        mean, raw = self._joint_experts(experts, observed)
        members = jnp.broadcast_to(observed[:, None], (len(observed), num_samples, len(self.modalities)))
        if mixes:
            subsets = self._subsets()
            at_hand = multimodal.subsets_at_hand(subsets, observed)
            logits = jnp.where(at_hand | ~at_hand.any(axis=1, keepdims=True), 0.0, -jnp.inf)
            chosen = jax.random.categorical(key, logits[:, None], shape=(len(observed), num_samples))
            members = members & jnp.asarray(subsets)[chosen]
        if self.is_mixture:
            expert = jnp.argmax(members, axis=-1)[..., None]
            return tuple(jnp.take_along_axis(array, expert, axis=1) for array in (mean, self.posterior.scale(raw)))
        prior = self._prior_is_expert(members)
        location, log_variance = product_of_experts(mean[:, None], raw[:, None], members, self._eps, prior)
        return location, jnp.exp(0.5 * log_variance)

    def _joint_experts(self, experts: tuple[Array, Array], observed: Array) -> tuple[Array, Array]:
        """Return means and raw scales [B, M, D] of experts of the joint latent, 0 where nothing is observed."""
        mean, raw = (jnp.where(observed[..., None], array[..., : self.sizes[0]], 0.0) for array in experts)
        return mean, raw

    def posterior_parts(
        self, params: Params, key: Key, data: Data, present: Array | None = None
    ) -> tuple[Array, Array, Array, Array]:
        """Return the posterior given float data, of a mixture one component at random for each row.

        Args:
          params: of the stage.
          key: chooses the component.
          data: {modality: float [B, *shape]}.
          present: bool [B, M]; None where nothing is missing. Private latents of what is missing have mean 0
            and the scale of raw zeros.

        Returns:
          Location and scale of the joint latent [B, D], and of the private ones [M, B, D'].
        """
        experts = self._experts(params, data)
        present = jnp.ones(experts[0].shape[:2], bool) if present is None else present
        location, scale = self._joint_posterior(key, experts, present, 1, mixes=self.is_mixture)
        own = (jnp.where(present[..., None], array[..., self.sizes[0] :], 0.0) for array in experts)
        own_mean, own_raw = (jnp.moveaxis(array, 1, 0) for array in own)
        return location[:, 0], scale[:, 0], own_mean, self.posterior.scale(own_raw)

    def _sample_private(self, key: Key, experts: tuple[Array, Array], num_samples: int) -> Array:
        """Return private latents [B, S, M, D'] from their posteriors."""
        mean, raw = (array[:, None, :, self.sizes[0] :] for array in experts)
        noise = self.noise(key, (len(mean), num_samples, *mean.shape[2:]))
        return self.posterior.sample(mean, self.posterior.scale(raw), noise)

    @property
    def is_mixture(self) -> bool:
        """Whether the posterior is a mixture of the experts, which may be of any family."""
        return self.method in ("mmvae", "mmvae_plus")

    @property
    def _eps(self) -> float:
        return 0.0 if self.method == "mvae" else multimodal.EXPERT_EPS

    def _prior_is_expert(self, members: Array) -> Array:
        """Return bool [...] for subsets [..., M]: whether N(0, I) is one more expert of their products."""
        if self.method == "mvae":
            return (members.sum(axis=-1) > 1) | (self.config.variant == "original")
        return members.all(axis=-1) if self.method == "mopoe" else jnp.zeros(members.shape[:-1], bool)

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return what is decoded from the posterior means given all of float data; a mixture's from the own expert."""
        params, size = products[self.method], self.sizes[0]
        mean, raw = self._experts(params, data)
        members = jnp.ones(mean.shape[:2], bool)
        prior = self._prior_is_expert(members)
        product, _ = product_of_experts(mean[..., :size], raw[..., :size], members, self._eps, prior)
        latents = {}
        for i, modality in enumerate(self.modalities):
            joint = mean[:, i, :size] if self.is_mixture else product
            latents[modality.name] = jnp.concatenate([joint, mean[:, i, size:]], axis=-1)
        return self.autoencoders.decode_mean(params["autoencoders"], latents)

    has_likelihood = True
    has_costly_density = False
    """Whether the log density of a latent takes many evaluations of a network."""

    @property
    def _bound_subsets(self) -> np.ndarray:
        """The subsets whose products are mixed to the posterior of the bound, bool [S, M]."""
        mixes = self.is_mixture or self.method == "mopoe"
        return self._subsets() if mixes else np.ones((1, len(self.modalities)), bool)

    def log_weights(self, products: Mapping[str, Params], key: Key, data: Data, num_samples: int) -> Array:
        """Return log p(x, z_s) - log q(z_s | x) [B, S] of samples of the posterior given all of float data, in nats.

        Their mean is the ELBO; their log mean exp is the importance-weighted bound, which rises with S to log p(x).
        """
        params = products[self.method]
        experts = self._experts(params, data)
        everything = jnp.ones(experts[0].shape[:2], bool)
        choose_key, noise_key, own_key, prior_key = jax.random.split(key, 4)
        mixes = len(self._bound_subsets) > 1
        location, scale = self._joint_posterior(choose_key, experts, everything, num_samples, mixes)
        joint = self.posterior.sample(location, scale, self.noise(noise_key, location.shape))
        latents = Latents(joint, self._sample_private(own_key, experts, num_samples))
        inputs = {name: jnp.moveaxis(z, 1, 0) for name, z in self._decoder_inputs(latents).items()}
        unscaled = self._decoding(params, data)._replace(rescaling=(1.0,) * len(self.modalities))
        likelihood = unscaled.log_likelihood(inputs).sum(axis=-1)
        log_p, log_q = self._log_prior(products, prior_key, latents), self._log_posterior(experts, latents)
        return likelihood.T + log_p - log_q

    def _log_prior(self, products: Mapping[str, Params], key: Key, latents: Latents) -> Array:
        """Return the log density of latents under the prior that they are generated from [B, S]."""
        del key
        params, own_raw = products[self.method], jnp.zeros((len(self.modalities), self.sizes[1]))
        if self.settings.private_prior == "own" and self.is_mixture:
            own_raw = params.get("private_priors", own_raw)
        joint_scale, own_scale = (
            self.posterior.scale(params["prior"])[None, None],
            self.posterior.scale(own_raw)[None, None],
        )
        joint = self.posterior.log_prob(latents.joint, 0.0, joint_scale).sum(axis=-1)
        return joint + self.posterior.log_prob(latents.private, 0.0, own_scale).sum(axis=(-2, -1))

    def _log_posterior(self, experts: tuple[Array, Array], latents: Latents) -> Array:
        """Return the log density of latents under the posterior given all modalities [B, S]."""
        everything, z = jnp.ones(experts[0].shape[:2], bool), latents.joint
        mean, raw = self._joint_experts(experts, everything)
        if self.is_mixture:
            scale = self.posterior.scale(raw)
            terms = self.posterior.log_prob(z[:, :, None], mean[:, None], scale[:, None]).sum(axis=-1)
            joint = jax.nn.logsumexp(terms, axis=-1) - jnp.log(terms.shape[-1])
        else:
            joint = multimodal.mixture_of_products_log_prob(
                z, mean, raw, self._bound_subsets, self._eps, self._prior_is_expert
            )
        own_mean, own_raw = (array[:, None, :, self.sizes[0] :] for array in experts)
        own_scale = self.posterior.scale(own_raw)
        return joint + self.posterior.log_prob(latents.private, own_mean, own_scale).sum(axis=(-2, -1))


def _random_subsets(key: Key, number: int, num_modalities: int) -> Array:
    """Return bool [number, M]: of sizes uniform in 2 to M - 1, and uniform for each size; none where M is below 3."""
    size_key, order_key = jax.random.split(key)
    if num_modalities < 3:
        return jnp.ones((0, num_modalities), bool)
    sizes = jax.random.randint(size_key, (number, 1), 2, num_modalities)
    order = jnp.argsort(jax.random.uniform(order_key, (number, num_modalities)), axis=1)
    return order < sizes
