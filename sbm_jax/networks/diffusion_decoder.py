"""Diffusion decoders, which sample images from p(x | condition) with a denoiser and the sampling loop in data space.

With little compute, the way the condition enters matters most. A picture (the output of a feed-forward decoder;
DiffuseVAE's formulation 1) or a map learned from the latent is concatenated to the noisy image as channels, and
provides the layout. A latent that only modulates layers, as in the papers, needs far more training.

References: D. Wesego and P. Rooshenas, "Multimodal ELBO with Diffusion Decoders", 2024, Eq. 5.
  https://arxiv.org/abs/2408.16883. K. Pandey et al., "DiffuseVAE", 2022. https://arxiv.org/abs/2201.00308
"""

import dataclasses
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from sbm_jax.distributions import LIKELIHOODS
from sbm_jax.errors import SbmError, require
from sbm_jax.losses.score_matching import MIN_TIME, Draws, denoising_terms, stratified_times
from sbm_jax.networks.denoisers import DenoiserConfig, make_denoiser
from sbm_jax.networks.diffusion_decoder_config import LIKELIHOOD, DiffusionDecoderConfig, check_sampler
from sbm_jax.parameterization import Parameterization, scaled
from sbm_jax.sampling import SOLVERS, SampleResult, SamplerOptions, sample
from sbm_jax.sampling.chunks import in_chunks
from sbm_jax.sampling.density import log_density
from sbm_jax.sampling.guidance import classifier_free
from sbm_jax.sde import SDE, make_sde
from sbm_jax.types import Array, Context, Key, Modality, Params, ScoreFn


def is_picture(modality: Modality) -> bool:
    """Return whether a modality is a real-valued image, which diffusion decoders sample by default."""
    return len(modality.shape) == 3 and modality.likelihood in ("gaussian", "laplace")


def bounds_of(modality: Modality) -> tuple[float, ...]:
    """Return the range of a modality's data, (low, high); () if unbounded."""
    return modality.bounds or ((0.0, 1.0) if LIKELIHOODS[modality.likelihood].bounded else ())


class Condition(NamedTuple):
    """The conditions of B images; None for those not used.

    Attributes:
      picture: an image [B, H, W, C], in data units.
      latent: [B, D].
      which: int [B], the index of each row's modality, if one network samples several.
    """

    picture: Array | None = None
    latent: Array | None = None
    which: Array | None = None


class ConditionalDenoiser(nn.Module):
    """A denoiser that embeds its condition as feature maps and a vector.

    Attributes:
      config: options of the denoiser.
      trunk: maps latents [B, D] to feature maps [B, H, W, K]; None for none.
      modulated: whether a latent modulates the layers.
      num_kinds: number of modalities that the network samples; see `Condition.which`.
    """

    config: DenoiserConfig
    trunk: nn.Module | None
    modulated: bool
    num_kinds: int

    def setup(self):
        """Create the denoiser."""
        self.denoiser = make_denoiser(self.config)

    def prepare(self, condition: Condition) -> tuple[Array | None, Array | None]:
        """Embed a condition as feature maps [B, H, W, K] and a vector [B, E], each None if not used."""
        maps = [] if condition.picture is None else [condition.picture]
        if self.trunk is not None:
            maps.append(self.trunk(condition.latent))
        vectors = [condition.latent] if self.modulated else []
        if self.num_kinds > 1:
            vectors.append(jax.nn.one_hot(condition.which, self.num_kinds))
        return tuple(jnp.concatenate(parts, axis=-1) if parts else None for parts in (maps, vectors))

    def denoise(self, x: Array, t: Array, maps: Array | None, vector: Array | None, train: bool = False) -> Array:
        """Return the denoiser's output [B, H, W, C]."""
        return self.denoiser(x, t, maps, vector, train)

    def __call__(self, x: Array, t: Array, condition: Condition) -> Array:
        """Return the denoiser's output; initialises all parameters."""
        return self.denoise(x, t, *self.prepare(condition))


CPU_CHUNK = 8
"""Images to sample at a time on a CPU, so that activations stay in the caches: in batches of 64, a UNet takes 1.5 times
as long per image (`benchmarks.decoder_throughput`)."""


@dataclasses.dataclass(frozen=True)
class DiffusionDecoder:
    """A diffusion model of p(x | condition) for images of one shape.

    Attributes:
      shape: (H, W, C).
      bounds: range of the data, which is rescaled to [-1, 1] for diffusion; () for data of about unit variance, which
        are not rescaled.
      config: see `DiffusionDecoderConfig`.
      has_picture: whether the condition includes an image.
      latent_size: size D of the latents in the condition; 0 for none.
      trunk: see `ConditionalDenoiser`.
      modulated: see `ConditionalDenoiser`.
      num_kinds: see `ConditionalDenoiser`.
    """

    shape: tuple[int, ...]
    bounds: tuple[float, ...]
    config: DiffusionDecoderConfig
    has_picture: bool = False
    latent_size: int = 0
    trunk: nn.Module | None = None
    modulated: bool = False
    num_kinds: int = 1

    def __post_init__(self):
        if bool(self.latent_size) != (self.trunk is not None or self.modulated):
            raise SbmError(
                f"diffusion decoder: latent_size is {self.latent_size}; expected a positive size with a trunk or "
                "modulated layers, and 0 without. Set latent_size accordingly."
            )
        if len(self.shape) != 3:
            raise SbmError(f"a diffusion decoder samples images (height, width, channels), not {self.shape}.")
        ordered = not self.bounds or (len(self.bounds) == 2 and self.bounds[0] < self.bounds[1])
        require(ordered, "diffusion decoder: bounds", self.bounds, "(low, high), or ()")

    @property
    def network(self) -> ConditionalDenoiser:
        """The network."""
        return ConditionalDenoiser(self.config.network, self.trunk, self.modulated, self.num_kinds)

    @property
    def sde(self) -> SDE:
        """The diffusion process."""
        return make_sde(self.config.sde)

    def init(self, key: Key, condition: Condition) -> Params:
        """Return fresh parameters, given the condition of one image."""
        x, t = jnp.zeros((1, *self.shape)), jnp.zeros(1)
        return self.network.init(key, x, t, condition)["params"]

    # MARK: Units

    def scale(self, x: Array) -> Array:
        """Rescale data to the range in which they are diffused."""
        return x if not self.bounds else (x - self._middle) / self._half

    def restore(self, x: Array) -> Array:
        """Undo `scale`."""
        return x if not self.bounds else x * self._half + self._middle

    @property
    def _middle(self) -> float:
        return (self.bounds[0] + self.bounds[1]) / 2

    @property
    def _half(self) -> float:
        return (self.bounds[1] - self.bounds[0]) / 2 if self.bounds else 1.0

    def context(self, batch: int) -> Context:
        """Return the context of `batch` images, where each is a single unobserved modality."""
        return Context(jnp.zeros((batch, 1), bool), jnp.ones(self.shape, bool), owner=(0,) * self.shape[0])

    # MARK: Training

    def loss(self, params: Params, key: Key, x: Array, condition: Condition, train: bool = True) -> Array:
        """Compute the training objective [B] of data [B, H, W, C], summed over entries.

        With λ = g², it is an upper bound on -log p(x | condition), in nats; otherwise, the weighted squared error of ε̂.
        """
        self._check(condition, x)
        drop_key, key = jax.random.split(key)
        rows = None
        if self.config.condition_dropout and train:
            rows = ~jax.random.bernoulli(drop_key, self.config.condition_dropout, (len(x),))
        maps, vector = self._prepare(params, condition, rows)
        if self.config.weighting == LIKELIHOOD:
            return self._bound(params, key, x, maps, vector, train)
        draw_key, dropout_key = jax.random.split(key)
        noise_key, time_key = jax.random.split(draw_key)
        draws = Draws(
            self._times(time_key, len(x)), jax.random.normal(noise_key, x.shape), jnp.zeros((len(x), 1), bool)
        )

        def noise_fn(x_t: Array, t: Array, context: Context) -> Array:
            del context
            return self._noise(params, x_t, t[:, 0], maps, vector, dropout_key if train else None)

        weighted, _ = denoising_terms(
            noise_fn, self.sde, self.scale(x), self.context(len(x)), draws, self.config.weighting
        )
        return weighted * math.prod(self.shape)

    def bound(self, params: Params, key: Key, x: Array, condition: Condition) -> Array:
        """Estimate an upper bound on -log p(x | condition) [B] of data [B, H, W, C], in nats, from one time per row."""
        self._check(condition, x)
        return self._bound(params, key, x, *self._prepare(params, condition), train=False)

    def _bound(
        self, params: Params, key: Key, x: Array, maps: Array | None, vector: Array | None, train: bool
    ) -> Array:
        """Estimate KL(q(x_1 | x) ‖ p(x_1)) + ½ ∫ g² ‖s - ∇log p_0t‖² dt - log p(x | x_ε), in nats.

        The score term enters the lower bound with a minus sign; Eq. 5 of the Diff-MVAE paper prints a plus. With
        λ = log(α/σ), the integral is ∫ ‖ε̂ - ε‖² dλ, and λ is drawn uniformly, stratified over the rows: with uniform
        times, g²/σ² would cause most of the variance at small t. p(x | x_ε) is N(x_ε / α, (σ/α)²).
        """
        noise_key, order_key, place_key, dropout_key = jax.random.split(key, 4)
        sde, batch, size = self.sde, len(x), math.prod(self.shape)
        ends = jnp.array([1.0, self.config.sampler.end_time])
        alphas, sigmas = sde.marginal(ends)
        low, high = jnp.log(alphas / sigmas)
        strata = (jax.random.permutation(order_key, batch) + jax.random.uniform(place_key, (batch,))) / batch
        t = sde.time_of_half_log_snr(low + (high - low) * strata)
        alpha, sigma = (value[:, None, None, None] for value in sde.marginal(t))
        noise, x = jax.random.normal(noise_key, x.shape), self.scale(x)
        found = self._noise(params, alpha * x + sigma * noise, t, maps, vector, dropout_key if train else None)
        path = (high - low) * jnp.square(found - noise).sum(axis=(1, 2, 3))
        # At time 1 the sampler starts from N(0, α² + σ²).
        variance = alphas[0] ** 2 + sigmas[0] ** 2
        mean_square = jnp.square(alphas[0] * x).sum(axis=(1, 2, 3))
        ratio = sigmas[0] ** 2 / variance
        prior = 0.5 * (mean_square / variance + size * (ratio - 1.0 - jnp.log(ratio)))
        end = 0.5 * size * (1.0 + jnp.log(2 * jnp.pi) + 2 * jnp.log(sigmas[1] / alphas[1]))
        return prior + path + end + size * math.log(self._half)

    def _times(self, key: Key, batch: int) -> Array:
        times, number = stratified_times(key, batch), self.config.num_times
        return jnp.maximum(jnp.ceil(times * number) / number, MIN_TIME) if number else times

    # MARK: Sampling

    @property
    def evaluations(self) -> int:
        """Network evaluations per image."""
        sampler = self.config.sampler
        solver = SOLVERS[sampler.solver](sampler.snr, sampler.corrector_steps)
        return sampler.num_steps * solver.repeats * solver.evaluations * (2 if self.config.guidance else 1)

    def sample(
        self,
        params: Params,
        key: Key,
        condition: Condition,
        options: SamplerOptions | None = None,
        guidance: float | Array | None = None,
        row_numbers: Array | None = None,
    ) -> SampleResult:
        """Sample images [B, H, W, C] in data units; NaN in rows that diverge.

        Args:
          params: parameters of the network.
          key: a typed key.
          condition: see `Condition`.
          options: options of the sampler; None for the config's.
          guidance: w, a scalar or one value per image [B]; None for the config's.
          row_numbers: int [B], which determine each image's noise; None for 0 to B - 1.

        Raises:
          SbmError: if a condition is missing, unexpected or of the wrong shape; on a start_time below 1 without a
            picture in the condition; on a negative number for guidance; on guidance of a network trained without
            condition dropout.
        """
        options = self.config.sampler if options is None else options
        weight = self.config.guidance if guidance is None else guidance
        check_sampler(options)
        batch = self._check(condition)
        guided = not isinstance(weight, (int, float)) or weight != 0
        if isinstance(weight, (int, float)):
            require(0 <= weight < math.inf, "diffusion decoder: guidance", weight, "0 or more, and finite")
        elif jnp.shape(weight) not in ((), (batch,)):
            raise SbmError(
                f"diffusion decoder: guidance has the shape {jnp.shape(weight)}; expected a number or ({batch},)."
            )
        if row_numbers is not None and jnp.shape(row_numbers) != (batch,):
            raise SbmError(
                f"diffusion decoder: row_numbers have the shape {jnp.shape(row_numbers)}; expected ({batch},)."
            )
        if guided and not self.config.condition_dropout:
            raise self.config.needs_dropout(weight)
        if options.start_time < 1 and condition.picture is None:
            raise SbmError(
                "diffusion decoder: sampler.start_time below 1 starts from the picture in the condition, but the "
                "condition has none. Set it to 1."
            )
        numbers = jnp.arange(batch) if row_numbers is None else row_numbers
        rows = {"condition": condition, "number": numbers}
        if guided:
            rows["guidance"] = jnp.broadcast_to(jnp.asarray(weight, jnp.float32), (batch,))
        chunk = options.chunk_size or (CPU_CHUNK if jax.default_backend() == "cpu" else 0)
        return in_chunks(lambda part: self._sample(params, key, part, options), rows, chunk)

    def _check(self, condition: Condition, x: Array | None = None) -> int:
        """Check a condition, and data x if given, and return their number of images.

        Raises:
          SbmError: if a condition is missing or unexpected, or shapes or numbers of images do not match.
        """
        kinds = {
            "picture": self.shape if self.has_picture else None,
            "latent": (self.latent_size,) if self.latent_size else None,
            "which": () if self.num_kinds > 1 else None,
        }
        found = {name: jnp.shape(value) for name, value in condition._asdict().items() if value is not None}
        first = jnp.shape(x) if x is not None else next(iter(found.values()), (0,))
        batch = first[0] if first else 0
        expected = {name: (batch, *shape) for name, shape in kinds.items() if shape is not None}
        if found != expected or (x is not None and first != (batch, *self.shape)):
            also = "" if x is None else f" and data of {first}"
            raise SbmError(
                f"diffusion decoder: Condition has {found or 'nothing'}{also}; expected a row for each of B images: "
                f"{', '.join(f'{name} {(*shape,)}' for name, shape in kinds.items() if shape is not None)}"
                f"{'' if x is None else f', data {self.shape}'}."
            )
        require(batch >= 1, "diffusion decoder: the number of images", batch, "at least 1")
        return batch

    def _sample(self, params: Params, key: Key, rows: dict, options: SamplerOptions) -> SampleResult:
        condition, batch = rows["condition"], len(rows["number"])
        context = self.context(batch).replace(row_numbers=rows["number"])
        maps, vector = self._prepare(params, condition)
        score_fn = self.score_fn(params, maps, vector)
        transforms = ()
        if "guidance" in rows:
            unconditional = self.score_fn(params, *self._prepare(params, condition, jnp.zeros(batch, bool)))
            transforms = (classifier_free(unconditional, rows["guidance"]),)
        start = self.scale(condition.picture) if options.start_time < 1 else None
        z = jnp.zeros((batch, *self.shape))
        result = sample(score_fn, self.sde, key, z, context, options, transforms, start)
        twice = 2 if transforms else 1
        return result._replace(z=self.restore(result.z), network_evaluations=twice * result.network_evaluations)

    def score_fn(self, params: Params, maps: Array | None, vector: Array | None) -> ScoreFn:
        """Return the score function of diffused images, given each image's maps and vector from its condition."""

        def score(key: Key, x: Array, t: Array) -> Array:
            del key
            time = jnp.max(t)
            _, sigma = self.sde.marginal(time)
            times = jnp.broadcast_to(time, (len(x),))
            return -self._noise(params, x, times, maps, vector, None) / sigma

        return score

    def log_likelihood(self, params: Params, key: Key, x: Array, condition: Condition, num_steps: int = 100) -> Array:
        """Compute log p(x | condition) [B] of small images along the probability flow, in nats.

        Raises:
          SbmError: on an invalid condition, as in `sample`, or fewer than one step.
        """
        self._check(condition, x)
        require(num_steps >= 1, "diffusion decoder: num_steps of the likelihood", num_steps, "at least 1")
        score_fn, context = self.score_fn(params, *self._prepare(params, condition)), self.context(len(x))
        end = self.config.sampler.end_time
        return log_density(score_fn, self.sde, key, self.scale(x), context, num_steps, end) - math.prod(
            self.shape
        ) * math.log(self._half)

    # MARK: The network

    def _prepare(
        self, params: Params, condition: Condition, rows: Array | None = None
    ) -> tuple[Array | None, Array | None]:
        """Embed a condition; where `rows`, bool [B], is False, its picture and latent are replaced by zeros."""
        if condition.picture is not None:
            condition = condition._replace(picture=self.scale(condition.picture))
        if rows is not None:  # `which` is never dropped
            picture, latent = _masked(condition.picture, rows), _masked(condition.latent, rows)
            condition = condition._replace(picture=picture, latent=latent)
        return self.network.apply({"params": params}, condition, method="prepare")

    def _noise(
        self, params: Params, x: Array, t: Array, maps: Array | None, vector: Array | None, dropout_key: Key | None
    ) -> Array:
        """Predict the noise ε̂ of diffused images [B, H, W, C] at times [B]."""
        alpha, sigma = (value[:, None, None, None] for value in self.sde.marginal(t))
        given = scaled(x, alpha, sigma)
        train = dropout_key is not None
        output = self.network.apply(
            {"params": params},
            given,
            t,
            maps,
            vector,
            train,
            method="denoise",
            rngs={"dropout": dropout_key} if train else None,
        )
        return Parameterization(self.config.prediction).noise(output, given, alpha, sigma)


def _masked(values: Array | None, rows: Array) -> Array | None:
    """Replace values [B, ...] by 0 where `rows`, bool [B], is False."""
    return None if values is None else jnp.where(rows.reshape(-1, *(1,) * (values.ndim - 1)), values, 0.0)
