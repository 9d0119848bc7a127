"""How well a score model learns a known joint law of a short and a long latent, in both directions.

    python -m benchmarks.unequal_latents

The law is Gaussian: all entries depend on the same few factors, plus independent noise. The short latent is one token
of 16 entries, the long one 1,024 entries in 16 tokens. Each is sampled given the other, and the conditional mean and
covariance are compared with the exact ones. Writes one JSON line per direction to standard output.

Along the factors the long latent has a variance of 26, so that the short one is informative at late times, where α² is
small. There the weighting ``"noise"`` gives the velocity error almost no weight, and 2,000 steps leave the factors
nearly unlearned; ``"velocity"``, the default here, weights it equally at all times (`--weighting`).
"""

import dataclasses
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from sbm_jax.losses.score_matching import WEIGHTINGS, denoising_terms, draw
from sbm_jax.networks.score import ScoreModel, ScoreNetworkConfig, make_score_model
from sbm_jax.sampling import SamplerOptions, sample
from sbm_jax.sde import VP
from sbm_jax.systems.latents import pack, token_owners, token_sizes, unpack, valid_entries
from sbm_jax.types import Array, Context, Key, Modality, Params


@dataclasses.dataclass(frozen=True)
class FactorLaw:
    """x_m = W_m h + sqrt(1 - c_m) ε, h and ε standard normal, with entries of unit variance.

    Attributes:
      modalities: the two modalities, with their sizes and tokens.
      shared: c_m, the fraction of each modality's variance that is due to the factors.
      num_factors: size of h.
    """

    modalities: tuple[Modality, Modality]
    shared: tuple[float, float]
    num_factors: int = 4

    @property
    def loadings(self) -> list[np.ndarray]:
        """W_m [D_m, factors] of each modality."""
        rng = np.random.default_rng(0)
        raw = [rng.normal(size=(m.latent_size, self.num_factors)) for m in self.modalities]
        unit = [w / np.linalg.norm(w, axis=1, keepdims=True) for w in raw]
        return [np.sqrt(c) * w for c, w in zip(self.shared, unit, strict=True)]

    def sample(self, key: Key, rows: int) -> Array:
        """Return packed draws [B, N, D]."""
        factor_key, *keys = jax.random.split(key, 3)
        factors, latents = jax.random.normal(factor_key, (rows, self.num_factors)), {}
        for modality, w, c, own_key in zip(self.modalities, self.loadings, self.shared, keys, strict=True):
            noise = jax.random.normal(own_key, (rows, modality.latent_size))
            latents[modality.name] = factors @ jnp.asarray(w.T, jnp.float32) + (1 - c) ** 0.5 * noise
        return pack(latents, self.modalities)

    def factors_given(self, given: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean [B, factors] and covariance of h given the latent vectors x [B, D_m] of a modality."""
        w, noise = self.loadings[given], 1 - self.shared[given]
        covariance = np.linalg.inv(np.eye(self.num_factors) + w.T @ w / noise)
        return x @ w @ covariance / noise, covariance

    def context(self, rows: int, given: int | None = None) -> Context:
        """Return the context of rows in which one modality is given, or none."""
        observed = jnp.broadcast_to(jnp.arange(2)[None] == (-1 if given is None else given), (rows, 2))
        return Context(observed, jnp.asarray(valid_entries(self.modalities)), owner=token_owners(self.modalities))

    def model(self, width: int, depth: int = 1) -> ScoreModel:
        """Return a transformer over the tokens."""
        config = ScoreNetworkConfig("transformer", width, depth)
        return make_score_model(config, VP(), "velocity", token_sizes(self.modalities), token_owners(self.modalities))


UNEQUAL = FactorLaw(
    (Modality("short", (1,), 16, "mlp"), Modality("long", (1,), 1024, "mlp", num_tokens=16)), (0.5, 0.1)
)


def train(law: FactorLaw, model: ScoreModel, steps: int, batch: int, weighting: str = "velocity") -> Params:
    """Train with Adam and a cosine decay from 3e-3, on new draws in every step; return the parameters."""

    def loss(params: Params, key: Key) -> Array:
        data_key, draw_key = jax.random.split(key)
        z, context = law.sample(data_key, batch), law.context(batch)
        draws = draw(draw_key, z.shape, 0.2, owner=context.owner)
        terms, _ = denoising_terms(
            lambda z, t, c: model.noise(params, z, t, c), model.sde, z, context, draws, weighting
        )
        return terms.mean()

    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0), optax.adam(optax.warmup_cosine_decay_schedule(0.0, 3e-3, 100, steps))
    )

    @jax.jit
    def run(params: Params) -> Params:
        def step(carry: tuple, key: Key) -> tuple[tuple, None]:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, key), state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(1), steps)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

    return run(model.init(jax.random.key(0), law.context(1)))


def measure(law: FactorLaw, model: ScoreModel, params: Params, given: int, rows: int) -> dict[str, float]:
    """Compare samples of the other modality given one with the exact law.

    Returns:
      ``mean_error``, root mean square error of the conditional means, in the entries, over that of predicting 0;
      ``factor_variance``, the variance of the samples of a row along the factors, over the exact one; ``own_variance``,
      the same for what is orthogonal to the factors.
    """
    samples = 32
    context = law.context(rows * samples, given)
    z = jnp.repeat(law.sample(jax.random.key(2), rows), samples, axis=0)

    @jax.jit
    def run(z: Array) -> Array:
        options = SamplerOptions(num_steps=50)
        return sample(model.bind(params, context, z, 1), model.sde, jax.random.key(3), z, context, options).z

    names = [modality.name for modality in law.modalities]
    x = np.asarray(unpack(z, law.modalities)[names[given]][::samples], np.float64)
    drawn = np.asarray(unpack(run(z), law.modalities)[names[1 - given]], np.float64).reshape(rows, samples, -1)
    factors, covariance = law.factors_given(given, x)
    w, noise = law.loadings[1 - given], 1 - law.shared[1 - given]
    mean = factors @ w.T
    residual = drawn - drawn.mean(axis=1, keepdims=True)
    unbiased = rows * (samples - 1)
    # The mean of few samples misses the law's mean by a part of its variance by chance; that is not an error.
    chance = np.sum(residual**2) / unbiased / samples
    missed = np.sum((drawn.mean(axis=1) - mean) ** 2, axis=1).mean() - chance
    basis, _ = np.linalg.qr(w)
    along = residual @ basis
    expected = np.trace(basis.T @ w @ covariance @ w.T @ basis) + noise * law.num_factors
    orthogonal = np.sum(residual**2) - np.sum(along**2)
    return {
        "mean_error": float(np.sqrt(max(missed, 0.0) / np.sum(mean**2, axis=1).mean())),
        "factor_variance": float(np.sum(along**2) / unbiased / expected),
        "own_variance": float(orthogonal / unbiased / (noise * (len(w) - law.num_factors))),
    }


def _define_flags() -> None:
    # Not at import: several benchmarks define --steps, and tests import them together.
    flags.DEFINE_integer("steps", 3000, "Optimiser steps.")
    flags.DEFINE_integer("batch", 64, "Batch size.")
    flags.DEFINE_enum("weighting", "velocity", sorted(WEIGHTINGS), "Weighting of the loss.")
    flags.DEFINE_integer("width", 64, "Token size of the transformer.")
    flags.DEFINE_integer("rows", 32, "Given latents per direction; 32 samples of each.")


def main(_: list[str]) -> None:
    """Train, measure both directions, and print them."""
    values = flags.FLAGS
    model, start = UNEQUAL.model(values.width), time.perf_counter()
    params = jax.block_until_ready(train(UNEQUAL, model, values.steps, values.batch, values.weighting))
    seconds = time.perf_counter() - start
    for given in range(2):
        names = [modality.name for modality in UNEQUAL.modalities]
        line = {"given": names[given], **measure(UNEQUAL, model, params, given, values.rows), "train_seconds": seconds}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    _define_flags()
    app.run(main)
