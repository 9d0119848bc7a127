"""Score-based multimodal autoencoders: SBM-VAE and SBM-RAE.

Stage I (`systems.unimodal`) trains one autoencoder per modality, and encodes all training data once, into a bank. Stage
II (`systems.score_stage`) trains one score model over the joint latents. Any modality is generated from any others by
sampling the latents of what is missing with those of what is observed held fixed.

Reference: D. Wesego and P. Rooshenas, "Score-Based Multimodal Autoencoder", 2023. https://openreview.net/forum?id=JbuP6UV3Fk
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sbm_jax.errors import SbmError
from sbm_jax.networks.codecs import files
from sbm_jax.sampling import CONDITIONINGS, SampleResult, SamplerOptions, bind_context, sample
from sbm_jax.sampling.chunks import in_chunks
from sbm_jax.sampling.density import log_density
from sbm_jax.sampling.starts import gaussian_conditional
from sbm_jax.system import Generated
from sbm_jax.systems.latents import unpack
from sbm_jax.systems.method import Method, Shared
from sbm_jax.systems.observed import decode, observed_rows, put_back
from sbm_jax.systems.score_stage import SbmConfig, ScoreOfLatents
from sbm_jax.types import (
    Array,
    Context,
    Data,
    Key,
    Params,
    ScoreFn,
    ScoreTransform,
)


@dataclasses.dataclass(frozen=True)
class Sbm(ScoreOfLatents):
    """SBM-VAE or SBM-RAE: any modality is generated from any others by the score of their latents.

    Systems with guidance add stages, and override what they know of the observed data (`_embed`) and how they
    transform the score (`_transforms`).

    Attributes:
      num_free: see `with_free`.
    """

    num_free: int | None = None

    def check(self, options: SamplerOptions) -> None:
        """Raise `SbmError` for what can not work, by tracing shapes: nothing is computed."""
        self.latent_space.check()
        self.check_score(self.own_options(options))

    def own_options(self, options: SamplerOptions) -> SamplerOptions:
        """Return how this system samples, given how the experiment does: just so."""
        return options

    # MARK: Use

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return the autoencoders' reconstruction, from the posterior means, of float data."""
        return self.latent_space.reconstruct(products, data)

    def codec_reconstructions(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return the same; see `system.HasCodecs`."""
        return self.reconstruct(products, data)

    def encode(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return the latents {modality: [B, D_m]} of float data, in the units of generated ones."""
        return unpack(self.latent_space.encode(products, data), self.modalities)

    def posteriors(self, products: Mapping[str, Params], data: Data) -> dict[str, tuple[Array, Array | None]]:
        """Return the codecs' means and log variances; see `system.HasCodecs`."""
        return self.latent_space.posteriors(products, data)

    tells_latents = True

    @property
    def decoder_name(self) -> str:
        """What reconstructs: the autoencoders."""
        return self.latent_space.autoencoder

    @property
    def decoder_stages(self) -> tuple[str, ...]:
        """The names of the stages with the products that `draw_reconstructions` uses."""
        return self.latent_space.stage_names

    @property
    def decoder_settings(self) -> dict[str, Any]:
        """How codecs draw that do so step by step."""
        return self.latent_space.codecs.drawing

    def draw_reconstructions(
        self, products: Mapping[str, Params], key: Key, data: Data, present: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return what the decoders make of posterior samples, and these; see `system.Reconstructs`."""
        return self.latent_space.draw_reconstructions(products, key, data, present)

    def with_free(self, number: int) -> "Sbm":
        """Return the system for rows with at most so many unobserved modalities; see `system.SparesObserved`."""
        return dataclasses.replace(self, num_free=number)

    def save_codec(self, products: Mapping[str, Params], name: str, path: str | os.PathLike[str]) -> None:
        """Write the trained codec of a modality to a file; see `TrainedSystem.save_codec`."""
        files.save(path, self.latent_space.codec_params(products, name))

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
    ) -> Generated:
        """Generate what is not observed (section 2.1): encode, sample the joint latents, decode.

        Args:
          products: the stages' products by stage name.
          key: a typed key.
          data: {modality: float [B, *shape]}; what is unobserved is ignored and may be left out.
          observed: bool [B, M] or [M], True = given; what is not in `data` counts as not given.
          options: of the experiment, see `sampling.SamplerOptions`; some systems have their own (`own_options`).
          num_samples: S, samples per row.
          strength: of the guidance, a number or one for each row [B]; None for that of the config.

        Raises:
          SbmError: on data of an unknown modality, a wrong shape, or a strength where there is no guidance.
        """
        options = self.own_options(options)
        self._check_conditioning(options)
        observed = observed_rows(data, observed, self.modalities)
        result = self.sample_latents(products, key, data, observed, options, num_samples, strength=strength)
        space = self.latent_space
        inputs = space.restore(products, result.z)
        samples, lost, costs = decode(space.codecs, space.params(products), key, inputs, observed, self.modalities)
        latents = unpack(result.z, self.modalities)
        return Generated(
            data=put_back(samples, data, observed, self.modalities),
            latents={name: array.reshape(len(observed), num_samples, -1) for name, array in latents.items()},
            info={
                "network_evaluations": self.evaluations_per_score * result.network_evaluations,
                **costs,
                "diverged": (result.diverged | lost).sum(),
            },
        )

    def sample_latents(
        self,
        products: Mapping[str, Params],
        key: Key,
        data: Data,
        observed: Array,
        options: SamplerOptions,
        num_samples: int = 1,
        *,
        strength: Array | float | None = None,
    ) -> SampleResult:
        """Sample the joint latents of all samples of each row, given what is observed: bool [B, M]; see `generate`."""
        batch = len(observed)
        given = {
            "strength": self._strength(strength, batch),
            "observed": observed,
            **self._encode_observed(products, data, observed),
        }
        given = jax.tree.map(lambda array: jnp.repeat(array, num_samples, axis=0), given)
        given["row_numbers"] = jnp.arange(batch * num_samples)
        return in_chunks(lambda chunk: self._sample(products, key, chunk, options), given, chunk_size(options))

    def _encode_observed(self, products: Mapping[str, Params], data: Data, observed: Array) -> dict[str, Array | None]:
        """Return the latents [B, N, D] of the data, and their embedding; 0 without work where nothing is observed."""

        def nothing() -> dict[str, Array | None]:
            z = jnp.zeros((len(observed), *self.latent_space.valid.shape))
            return {"z_observed": z, "embedding": self._embed(products, {}, observed)}

        def something() -> dict[str, Array | None]:
            z = self.latent_space.encode(products, data)
            return {"z_observed": z, "embedding": self._embed(products, data, observed)}

        return jax.lax.cond(observed.any(), something, nothing) if data else nothing()

    def _sample(
        self,
        products: Mapping[str, Params],
        key: Key,
        given: Mapping[str, Array | None],
        options: SamplerOptions,
    ) -> SampleResult:
        """Sample the latents of some rows."""
        z_observed, context = given["z_observed"], self.context(len(given["observed"]))
        context = context.replace(**{name: given[name] for name in ("observed", "embedding", "row_numbers")})
        start_key, sample_key = jax.random.split(key)
        start = None
        if options.start == "gaussian":
            correlation = self.latent_space.statistics(products).correlation
            start = gaussian_conditional(
                start_key, z_observed, context, jnp.zeros(self.latent_space.valid.shape), correlation
            )
        score_fn = self._bind(products, context, z_observed, options)
        transforms = self._transforms(products, context, z_observed, options, given["strength"])
        return sample(score_fn, self.sde, sample_key, z_observed, context, options, transforms, start)

    def _bind(
        self,
        products: Mapping[str, Params],
        context: Context,
        z_observed: Array,
        options: SamplerOptions,
    ) -> ScoreFn:
        """Return the score function for the rows and the observed sets that the conditioning shows the network."""
        bound = bind_context(options, context)
        z_observed = jnp.repeat(z_observed, len(bound.observed) // len(z_observed), axis=0)
        num_free = self.num_free if CONDITIONINGS[options.conditioning].own_times else None
        return self.score_model.bind(products[self.score_stage_name], bound, z_observed, num_free)

    # MARK: Likelihood

    def log_density(self, products: Mapping[str, Params], key: Key, z: Array) -> Array:
        """Return the log density [B] of standardised joint latents [B, N, D] under the score model, in nats."""
        context = self.context(len(z))
        score_fn = self.score_model.bind(products[self.score_stage_name], context, z)
        return log_density(score_fn, self.sde, key, z, context)

    def log_weights(self, products: Mapping[str, Params], key: Key, data: Data, num_samples: int) -> Array:
        """Return log p(x, z_s) - log q(z_s | x) [B, S] of posterior samples given all of float data, in nats.

        The prior is the score model. Their mean is the ELBO; their log mean exp the importance-weighted bound.

        Raises:
          SbmError: for deterministic autoencoders, which have no likelihood.
        """
        if self.regularised:
            raise SbmError(f"system {self.name!r} has deterministic encoders, and so no bound of a likelihood.")
        posterior_key, prior_key = jax.random.split(key)
        space, valid = self.latent_space, jnp.asarray(self.latent_space.valid)
        mean, std = space.posterior(products, data)
        noise = jax.random.normal(posterior_key, (len(mean), num_samples, *valid.shape))
        z, std = mean[:, None] + std[:, None] * noise, jnp.where(valid[None], std, 1.0)[:, None]
        log_q = -0.5 * (jnp.square(noise) + jnp.log(2 * jnp.pi)) - jnp.log(std)
        log_q = jnp.where(valid[None, None], log_q, 0.0).sum(axis=(-2, -1))
        statistics = space.statistics(products)
        flat = jnp.where(valid[None], statistics.standardise(z.reshape(-1, *valid.shape)), 0.0)
        log_p = self.log_density(products, prior_key, flat) - jnp.log(statistics.std).sum()
        likelihood = space.log_likelihood(products, key, data, jnp.moveaxis(z, 1, 0)).sum(axis=-1)
        return likelihood.T + log_p.reshape(-1, num_samples) - log_q

    @property
    def has_likelihood(self) -> bool:
        """Whether `log_weights` has a meaning: not for deterministic encoders, nor where guidance changes the law."""
        return not self.regularised and not self.latent_space.codecs.are_guided

    has_costly_density = True
    """Whether the log density of a latent takes many evaluations of a network."""

    # MARK: Guidance: none here

    evaluations_per_score = 1
    """Evaluations of the score network for one value of the guided score."""

    def _embed(self, products: Mapping[str, Params], data: Data, observed: Array) -> Array | None:
        """Return an embedding [B, E] of the observed data, if the score network is told one."""
        del products, data, observed

    def _strength(self, strength: Array | float | None, num_rows: int) -> Array | None:
        """Return the strength of the guidance for each row [B].

        Raises:
          SbmError: if one is given, and the system has no guidance.
        """
        if strength is not None:
            raise SbmError(f"system {self.name!r} has no guidance; leave out strength, or use a system with guidance.")
        del num_rows

    def _transforms(
        self,
        products: Mapping[str, Params],
        context: Context,
        z_observed: Array,
        options: SamplerOptions,
        strength: Array | None,
    ) -> tuple[ScoreTransform, ...]:
        """Return the guidance, in the order in which it is applied."""
        del products, context, z_observed, options, strength
        return ()


CPU_CHUNK = 64
"""Rows that are sampled at a time on a CPU, where the activations of more leave the caches."""


def chunk_size(options: SamplerOptions) -> int:
    """Return how many rows are sampled at a time; 0 for all, as where rows depend on each other."""
    conditioning = CONDITIONINGS[options.conditioning]
    if options.chunk_size or conditioning.moves_observed or jax.default_backend() != "cpu":
        return options.chunk_size
    return max(1, CPU_CHUNK // options.num_particles) if conditioning.filters else CPU_CHUNK


def strength_of_rows(strength: Array | float | None, default: float, num_rows: int) -> Array:
    """Return a strength for each row [B].

    Raises:
      SbmError: if it is neither a number nor one for each row.
    """
    strength = jnp.asarray(default if strength is None else strength, jnp.float32)
    if strength.shape not in ((), (num_rows,)):
        raise SbmError(f"strength must be a number or one for each of {num_rows} rows, not {list(strength.shape)}.")
    return jnp.broadcast_to(strength, (num_rows,))


# MARK: Methods

AUTOENCODERS = ("vae", "rae")
"""The autoencoders that a score model, with any guidance, may have."""


def fields_of(name: str, shared: Shared) -> dict[str, Any]:
    """Return the fields of `Sbm` for a method's name, which begins with ``sbm_rae`` where they are regularised."""
    return {
        "name": name,
        "modalities": shared.modalities,
        "config": SbmConfig(shared.autoencoder, shared.score),
        "seed": shared.seed,
        "regularised": name.startswith("sbm_rae"),
        "encoded": shared.encoded,
    }


def _make(name: str, shared: Shared) -> Sbm:
    return Sbm(**fields_of(name, shared))


METHODS = tuple(Method(f"sbm_{autoencoder}", _make) for autoencoder in AUTOENCODERS)
