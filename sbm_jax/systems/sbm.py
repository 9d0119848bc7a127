"""Score-based multimodal autoencoders: SBM-VAE and SBM-RAE.

Stage I (`systems.unimodal`) trains one autoencoder per modality and encodes all training data once, into a latent bank.
Stage II (`systems.score_stage`) trains one score model over the joint latents. Any modality is generated from any
others by sampling the latents of the missing modalities while those of the observed ones are held fixed.

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
    """SBM-VAE or SBM-RAE: generates any modality from any others by the score of their joint latents.

    Systems with guidance add stages, and override how they embed observed data (`_embed`) and transform the score
    (`_transforms`).

    Attributes:
      num_free: see `with_free`.
    """

    num_free: int | None = None

    def check(self, options: SamplerOptions) -> None:
        """Raise `SbmError` for settings that cannot work; traces shapes without computing anything."""
        self.latent_space.check()
        self.check_score(self.own_options(options))

    def own_options(self, options: SamplerOptions) -> SamplerOptions:
        """Return this system's sampler options, given the experiment's; here they are the same."""
        return options

    # MARK: Use

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Reconstruct float data from the posterior means: {modality: [B, *shape]}."""
        return self.latent_space.reconstruct(products, data)

    def codec_reconstructions(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return the same as `reconstruct`; see `system.HasCodecs`."""
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
        """Name of what reconstructs data: the autoencoders."""
        return self.latent_space.autoencoder

    @property
    def decoder_stages(self) -> tuple[str, ...]:
        """The names of the stages whose products `draw_reconstructions` uses."""
        return self.latent_space.stage_names

    @property
    def decoder_settings(self) -> dict[str, Any]:
        """Sampling settings of the codecs that decode step by step."""
        return self.latent_space.codecs.drawing

    def draw_reconstructions(
        self, products: Mapping[str, Params], key: Key, data: Data, present: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return reconstructions from posterior samples, and the samples; see `system.Reconstructs`."""
        return self.latent_space.draw_reconstructions(products, key, data, present)

    def with_free(self, number: int) -> "Sbm":
        """Return the system for rows with at most `number` unobserved modalities; see `system.SparesObserved`."""
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
        """Generate the unobserved modalities (section 2.1): encode, sample the joint latents, decode.

        Args:
          products: the stages' products by stage name.
          key: a typed key.
          data: {modality: float [B, *shape]}; unobserved modalities are ignored and may be left out.
          observed: bool [B, M] or [M], True = given; modalities that are not in `data` count as unobserved.
          options: the experiment's `sampling.SamplerOptions`; some systems override them (`own_options`).
          num_samples: S, samples per row.
          strength: guidance strength, a number or one per row [B]; None for the config's.

        Raises:
          SbmError: on an unknown modality, a wrong shape, or a strength for a system without guidance.
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
        """Sample the joint latents of B * S rows given the observed modalities, bool [B, M]; see `generate`."""
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
        """Return the latents [B, N, D] and the embedding of the data; 0 without computing if nothing is observed."""

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
        """Sample the latents of one chunk of rows."""
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
        """Bind the score function to the rows and observed sets that the conditioning shows the network."""
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
        """Return log p(x, z_s) - log q(z_s | x) [B, S] for posterior samples given all modalities, in nats.

        The score model is the prior. The mean over S is the ELBO, the log-mean-exp the importance-weighted bound.

        Raises:
          SbmError: for deterministic autoencoders, which have no likelihood.
        """
        if self.regularised:
            raise SbmError(
                f"system {self.name!r} has deterministic encoders, which give no bound of the likelihood. Use a system "
                "with variational autoencoders, such as 'sbm_vae'."
            )
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
        """Whether `log_weights` is meaningful: not for deterministic encoders or guided codecs."""
        return not self.regularised and not self.latent_space.codecs.are_guided

    has_costly_density = True
    """Whether the log density of a latent takes many network evaluations."""

    # MARK: Guidance (none by default)

    evaluations_per_score = 1
    """Score-network evaluations per evaluation of the guided score."""

    def _embed(self, products: Mapping[str, Params], data: Data, observed: Array) -> Array | None:
        """Return an embedding [B, E] of the observed data, None if the score network takes none."""
        del products, data, observed

    def _strength(self, strength: Array | float | None, num_rows: int) -> Array | None:
        """Return the guidance strength of each row [B]; None without guidance.

        Raises:
          SbmError: if a strength is given for a system without guidance.
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
        """Return the guidance transforms, in the order of their application."""
        del products, context, z_observed, options, strength
        return ()


CPU_CHUNK = 64
"""Rows sampled at a time on CPU; the activations of more do not fit in its caches."""


def chunk_size(options: SamplerOptions) -> int:
    """Return the number of rows to sample at a time; 0 for all, for instance if rows depend on each other."""
    conditioning = CONDITIONINGS[options.conditioning]
    if options.chunk_size or conditioning.moves_observed or jax.default_backend() != "cpu":
        return options.chunk_size
    return max(1, CPU_CHUNK // options.num_particles) if conditioning.filters else CPU_CHUNK


def strength_of_rows(strength: Array | float | None, default: float, num_rows: int) -> Array:
    """Broadcast a guidance strength, or its default if None, to rows: [B].

    Raises:
      SbmError: if the strength is neither a number nor an array [B].
    """
    strength = jnp.asarray(default if strength is None else strength, jnp.float32)
    if strength.shape not in ((), (num_rows,)):
        raise SbmError(f"strength must be a number or one for each of {num_rows} rows, not {list(strength.shape)}.")
    return jnp.broadcast_to(strength, (num_rows,))


# MARK: Methods

AUTOENCODERS = ("vae", "rae")
"""Autoencoders that a score model, with or without guidance, can build on."""


def fields_of(name: str, shared: Shared) -> dict[str, Any]:
    """Return the fields of `Sbm` for a method; a name that begins with ``sbm_rae`` selects regularised autoencoders."""
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
