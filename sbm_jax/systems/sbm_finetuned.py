"""SBM-VAE-F and SBM-RAE-F: decoders fine-tuned on the score model's samples of missing modalities.

Reference: D. Wesego and P. Rooshenas, "Score-Based Multimodal Autoencoder", 2023, appendix A.5.1, Eq. 11.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sbm_jax.config import checked_dataclass, plain
from sbm_jax.data.pipeline import in_units
from sbm_jax.errors import require
from sbm_jax.sampling import SamplerOptions
from sbm_jax.system import Generated
from sbm_jax.systems.latents import unpack
from sbm_jax.systems.method import Method, Shared
from sbm_jax.systems.sbm import AUTOENCODERS, Sbm, fields_of
from sbm_jax.types import Array, Data, Dataset, Key, Metrics, Params, Stage, TrainingConfig


@checked_dataclass
class FinetuningConfig:
    """Options of decoder fine-tuning.

    Attributes:
      training: see `types.TrainingConfig`.
      probability_drop: probability that a modality is dropped, and generated from those that are left.
    """

    training: TrainingConfig = TrainingConfig()
    probability_drop: float = 0.5

    def __post_init__(self):
        require(
            0 < self.probability_drop < 1, "methods.sbm_f.probability_drop", self.probability_drop, "between 0 and 1"
        )


@dataclasses.dataclass(frozen=True)
class SbmFinetuned(Sbm):
    """A score-based multimodal autoencoder with fine-tuned decoders.

    Attributes:
      finetuning: see `FinetuningConfig`.
      sampler: sampler of the dropped latents in fine-tuning; the decoders depend on it.
    """

    finetuning: FinetuningConfig = FinetuningConfig()
    sampler: SamplerOptions = SamplerOptions()

    @property
    def decoder_stage(self) -> str:
        """The name of the stage that fine-tunes the decoders."""
        return f"decoders_{self.latent_space.autoencoder}"

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the stages whose products `generate` uses."""
        return *super().stage_names, self.decoder_stage

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the stages of the plain system, then the fine-tuning stage."""
        space = self.latent_space
        # Chunking does not affect the samples.
        sampler = {name: v for name, v in plain(self.sampler).items() if name not in ("chunk_size", "unroll")}
        stage = Stage(
            name=self.decoder_stage,
            settings={
                "seed": self.seed,
                "finetuning": plain(self.finetuning),
                "sampler": sampler,
                "data": dataset.settings,
                **self.joint_settings,
            },
            requires=(*space.stage_names, self.score_stage_name),
            init=lambda key, upstream: _decoders(space.params(upstream)),
            loss=self._decoder_loss,
            rows=lambda upstream: space.rows(dataset.train),
            validation_rows=lambda upstream: space.rows(dataset.validation),
            training=self.finetuning.training,
        )
        return [*super().stages(dataset), stage]

    def _decoder_loss(
        self, params: Params, upstream: Mapping[str, Params], key: Key, batch: Mapping[str, Any]
    ) -> tuple[Array, Metrics]:
        """Return -log p(x_u | z_u), z_u ~ q(z_u | z_o), of dropped modalities, averaged over their rows (Eq. 11)."""
        data, space = in_units(batch["data"]), self.latent_space
        drop_key, sample_key = jax.random.split(key)
        num_rows = len(next(iter(data.values())))
        drop = jax.random.bernoulli(drop_key, self.finetuning.probability_drop, (num_rows, len(self.modalities)))
        has = batch.get("present", jnp.ones_like(drop))
        drop = drop & has & (has & ~drop).any(axis=1, keepdims=True)  # keep at least one modality to generate from
        sampled = jax.lax.stop_gradient(self.sample_latents(upstream, sample_key, data, has & ~drop, self.sampler))
        # A diverged sample is NaN; skip its row.
        z = jnp.where(sampled.diverged[:, None, None], 0.0, sampled.z)
        drop = drop & ~sampled.diverged[:, None]
        latents = unpack(space.statistics(upstream).restore(z), self.modalities)
        params = _merge(space.params(upstream), params)
        outputs = space.codecs.decode(params, latents)
        terms = space.codecs.loss(params, key, data, outputs)
        loss = jnp.zeros(num_rows)
        for i, modality in enumerate(self.modalities):
            loss = loss + jnp.where(drop[:, i], terms[modality.name], 0.0)
        count = jnp.maximum(drop.any(axis=1).sum(), 1)
        return loss.sum() / count, {"dropped": drop.mean(), "diverged": sampled.diverged.mean()}

    def _with_decoders(self, products: Mapping[str, Params]) -> dict[str, Params]:
        stages = self.latent_space.stage_names[:-1]
        return {**products, **{name: _merge(products[name], products[self.decoder_stage]) for name in stages}}

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Reconstruct float data from the posterior means with the fine-tuned decoders."""
        return super().reconstruct(self._with_decoders(products), data)

    @property
    def decoder_name(self) -> str:
        """Name of what reconstructs data: the fine-tuned decoders."""
        return self.name

    @property
    def decoder_stages(self) -> tuple[str, ...]:
        """The names of the stages whose products `draw_reconstructions` uses."""
        return *super().decoder_stages, self.decoder_stage

    def draw_reconstructions(
        self, products: Mapping[str, Params], key: Key, data: Data, present: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return fine-tuned reconstructions from posterior samples, and the samples; see `system.Reconstructs`."""
        return super().draw_reconstructions(self._with_decoders(products), key, data, present)

    def log_weights(self, products: Mapping[str, Params], key: Key, data: Data, num_samples: int) -> Array:
        """Return the log weights with the fine-tuned decoders; see `Sbm.log_weights`."""
        return super().log_weights(self._with_decoders(products), key, data, num_samples)

    def generate(self, products: Mapping[str, Params], *arguments, **options) -> Generated:
        """Generate unobserved modalities with the fine-tuned decoders; see `Sbm.generate`."""
        return super().generate(self._with_decoders(products), *arguments, **options)


def _decoders(codecs: Params) -> Params:
    """Copy all parameters except those of the encoders."""
    return {
        group: {name: jax.tree.map(jnp.copy, part) for name, part in parts.items() if name != "encoder"}
        for group, parts in codecs.items()
    }


def _merge(codecs: Params, decoders: Params) -> Params:
    return {group: {**parts, **decoders[group]} for group, parts in codecs.items()}


def _make(name: str, shared: Shared, sbm_f: FinetuningConfig) -> SbmFinetuned:
    return SbmFinetuned(**fields_of(name, shared), finetuning=sbm_f, sampler=shared.sampler)


METHODS = tuple(Method(f"sbm_{autoencoder}_f", _make, {"sbm_f": FinetuningConfig}) for autoencoder in AUTOENCODERS)
