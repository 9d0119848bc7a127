"""Stage I: one autoencoder per modality, and the bank of all training latents.

Shared by all systems that put a model over the latents of unimodal autoencoders. These are trained independently, as
in the paper, or with some entries of their latents aligned (ours): contrastive losses ask that rows which belong
together be alike in these entries, and that reconstructions show what makes them so. Squared errors alone say little of
what modalities share where it is a small part of the picture, such as a thin digit on a photograph: decoders leave it
out, and what the score model is to learn is hard to find in the latents.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.config import checked_dataclass, plain
from sbm_jax.data.pipeline import as_float
from sbm_jax.errors import SbmError, require
from sbm_jax.losses.autoencoding import AutoencodingTerms, elbo_terms, rae_terms
from sbm_jax.losses.info_nce import has_pair, info_nce_terms
from sbm_jax.losses.masked import masked_mean
from sbm_jax.losses.multimodal import Decoding
from sbm_jax.networks.autoencoders import AutoencoderNetworkConfig, Autoencoders
from sbm_jax.systems.latents import (
    LatentStatistics,
    encode_rows,
    latent_statistics,
    pack,
    sample_posterior,
    token_owners,
    unpack,
    valid_entries,
)
from sbm_jax.tokens import by_token
from sbm_jax.types import Array, Data, Dataset, Key, Metrics, Modality, Params, Split, Stage, TrainingConfig


@checked_dataclass
class AutoencoderConfig:
    """Stage I.

    Attributes:
      training: see `types.TrainingConfig`.
      network: sizes of the encoders and decoders.
      beta: weight of the KL divergence (VAE).
      rae_beta: weight of ‖z‖² (RAE, Eq. 10).
      rae_noise: standard deviation of the noise added to z before decoding (RAE).
      alignment: weight of the contrastive losses between modalities; 0 for autoencoders that are trained independently.
      aligned_size: how many entries of every latent, the first ones, they see.
    """

    training: TrainingConfig
    network: AutoencoderNetworkConfig = AutoencoderNetworkConfig()
    beta: float = 0.1
    rae_beta: float = 1e-5
    rae_noise: float = 0.01
    alignment: float = 0.0
    aligned_size: int = 16

    def __post_init__(self):
        for name in ("beta", "rae_beta", "rae_noise", "alignment"):
            require(getattr(self, name) >= 0, f"autoencoder.{name}", getattr(self, name), "0 or more")
        if self.alignment:
            require(self.aligned_size >= 2, "autoencoder.aligned_size", self.aligned_size, "2 or more")
            require(
                self.training.batch_size >= 2, "autoencoder.training.batch_size", self.training.batch_size, "2 or more"
            )


ALIGNMENT_INVERSE_TEMPERATURE = 10.0
"""τ of `info_nce_terms`, which is fixed, for a learned one would be the only parameter that is no autoencoder's."""


@dataclasses.dataclass(frozen=True)
class LatentSpace:
    """The latents of all modalities.

    Attributes:
      modalities: M modalities, in the order of every mask.
      config: see `AutoencoderConfig`.
      seed: the run's seed, part of every stage's fingerprint.
      regularised: True for deterministic, regularised autoencoders (RAE), False for VAEs.
      batched: compute modalities of equal shape by one `vmap` (see `PerModality`); None for all but CPU.
      trained: the modalities that stage I trains, those of the space among them; () for the same. Each autoencoder
        stands alone, so that spaces of several sizes share one stage I. Aligned ones do not: they would know of
        modalities that are outside the space.
    """

    modalities: tuple[Modality, ...]
    config: AutoencoderConfig
    seed: int = 0
    regularised: bool = False
    batched: bool | None = None
    trained: tuple[Modality, ...] = ()

    def __post_init__(self):
        if not self.config.alignment:
            return
        if len(self.modalities) < 2:
            raise SbmError("autoencoder.alignment needs two modalities or more; set it to 0 for one alone.")
        smallest = min(modality.latent_size for modality in self.modalities)
        if self.config.aligned_size > smallest:
            raise SbmError(
                f"autoencoder.aligned_size is {self.config.aligned_size}, but a latent has {smallest} entries only."
            )

    @property
    def whole(self) -> "LatentSpace":
        """The space of everything that stage I trains."""
        return dataclasses.replace(self, modalities=self.trained, trained=()) if self.trained else self

    @property
    def computes_batched(self) -> bool:
        """Whether modalities of equal shape are computed by one `vmap`."""
        return jax.default_backend() != "cpu" if self.batched is None else self.batched

    @property
    def autoencoders(self) -> Autoencoders:
        """The autoencoders of all modalities."""
        return Autoencoders(self.trained or self.modalities, self.config.network, self.computes_batched)

    @property
    def kind(self) -> str:
        """The kind of autoencoder: ``"vae"``, ``"rae"``, or ``"ae"`` where nothing regularises a deterministic one."""
        if not self.regularised:
            return "vae"
        return "rae" if self.config.rae_beta or self.config.rae_noise else "ae"

    @property
    def autoencoder_stage(self) -> str:
        """The name of the stage that trains the autoencoders."""
        return f"autoencoders_{self.kind}"

    @property
    def bank_stage(self) -> str:
        """The name of the stage that encodes all training data."""
        return f"latents_{self.kind}"

    @property
    def stage_names(self) -> tuple[str, str]:
        """The names of both stages."""
        return self.autoencoder_stage, self.bank_stage

    @property
    def valid(self) -> np.ndarray:
        """Bool [N, D], False on the padding of shorter tokens."""
        return valid_entries(self.modalities)

    # MARK: Stages

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the autoencoder stage and the latent bank, of all that are trained."""
        return [self.whole._make_autoencoder_stage(dataset), self.whole._make_bank_stage(dataset)]

    def _make_autoencoder_stage(self, dataset: Dataset) -> Stage:
        config = self.config
        return Stage(
            name=self.autoencoder_stage,
            settings={
                "seed": self.seed,
                "data": dataset.settings,
                "modalities": plain(self.modalities),
                "autoencoder": plain(config),
                "regularised": self.regularised,
            },
            init=lambda key, upstream: self.autoencoders.init(key),
            loss=self._autoencoder_loss,
            rows=lambda upstream: self.rows(dataset.train),
            validation_rows=lambda upstream: self.rows(dataset.validation),
            training=config.training,
        )

    def rows(self, split: Split) -> dict[str, Any]:
        """Return what stage I is trained on; see `types.Split.rows`."""
        return split.rows([modality.name for modality in self.modalities])

    def _autoencoder_loss(
        self, params: Params, upstream: Mapping[str, Params], key: Key, batch: Mapping[str, Any]
    ) -> tuple[Array, Metrics]:
        """Return the sum over modalities of the mean objective of the rows that have them."""
        del upstream
        data, present = as_float(batch["data"]), batch.get("present")
        posteriors, latents, outputs = self._autoencode(params, key, data)
        terms = self._terms(data, posteriors, outputs)
        has = dict.fromkeys(terms) if present is None else dict(zip(terms, present.T, strict=True))
        weight = self.config.rae_beta if self.regularised else self.config.beta
        reconstruction = sum(masked_mean(term.reconstruction, has[name]) for name, term in terms.items())
        regulariser = sum(masked_mean(term.regulariser, has[name]) for name, term in terms.items())
        loss, metrics = reconstruction + weight * regulariser, {}
        if self.config.alignment:
            alignment, recognition = self._alignment(params, latents, outputs, present)
            loss = loss + self.config.alignment * (alignment + recognition)
            metrics = {"alignment": alignment, "recognition": recognition}
        return loss, {"reconstruction": reconstruction, "regulariser": regulariser, **metrics}

    def autoencoding_terms(self, params: Params, key: Key, data: Data) -> dict[str, AutoencodingTerms]:
        """Return the per-row terms of stage I's objective for each modality of `data` (float, [B, *shape])."""
        posteriors, _, outputs = self._autoencode(params, key, data)
        return self._terms(data, posteriors, outputs)

    def _autoencode(
        self, params: Params, key: Key, data: Data
    ) -> tuple[dict[str, tuple[Array, Array]], dict[str, Array], dict[str, Array]]:
        """Return the posteriors, the latents that are drawn from them, and the decoders' raw outputs."""
        posteriors = self.autoencoders.encode(params, data)
        keys = dict(zip(posteriors, jax.random.split(key, len(posteriors)), strict=True))
        noise_std = self.config.rae_noise
        latents = {
            name: sample_posterior(keys[name], mean, noise_std if self.regularised else jnp.exp(0.5 * log_variance))
            for name, (mean, log_variance) in posteriors.items()
        }
        return posteriors, latents, self.autoencoders.decode(params, latents)

    def _terms(
        self, data: Data, posteriors: Mapping[str, tuple[Array, Array]], outputs: Mapping[str, Array]
    ) -> dict[str, AutoencodingTerms]:
        terms = {}
        for modality in self.modalities:
            name = modality.name
            if self.regularised:
                terms[name] = rae_terms(modality, data[name], outputs[name], posteriors[name][0])
            else:
                terms[name] = elbo_terms(modality, data[name], outputs[name], *posteriors[name])
        return terms

    def _alignment(
        self,
        params: Params,
        latents: Mapping[str, Array],
        outputs: Mapping[str, Array],
        present: Array | None = None,
    ) -> tuple[Array, Array]:
        """Return the contrastive losses of latents and of reconstructions, scalars.

        The first asks the encoders for what modalities share, the second asks that it be shown: encoded again, with
        weights that are held fixed there, a reconstruction must find the latents of the other modalities.
        """
        aligned, log_scale = self._aligned(latents), jnp.log(ALIGNMENT_INVERSE_TEMPERATURE)
        shown = self.autoencoders.expected(outputs)
        seen = self.autoencoders.encode(jax.lax.stop_gradient(params), shown)
        seen = self._aligned({name: mean for name, (mean, _) in seen.items()})
        alignment, _ = info_nce_terms(aligned, log_scale, present=present)
        recognition, _ = info_nce_terms(seen, log_scale, jax.lax.stop_gradient(aligned), present)
        paired = has_pair(present)
        return masked_mean(alignment, paired), masked_mean(recognition, paired)

    def _aligned(self, latents: Mapping[str, Array]) -> Array:
        """Return the aligned entries of all modalities as unit vectors [B, M, E]."""
        size = self.config.aligned_size
        aligned = jnp.stack([latents[modality.name][:, :size] for modality in self.modalities], axis=1)
        return aligned / jnp.linalg.norm(aligned, axis=-1, keepdims=True)

    def _make_bank_stage(self, dataset: Dataset) -> Stage:
        return Stage(
            name=self.bank_stage,
            settings={},
            requires=(self.autoencoder_stage,),
            init=lambda key, upstream: self._bank(upstream[self.autoencoder_stage], dataset),
        )

    def _bank(self, params: Params, dataset: Dataset) -> Params:
        """Return posterior means and standard deviations [rows, N, D] of both splits, and their statistics.

        Where rows lack modalities, there is ``present`` besides, bool [rows, M], and their entries are 0.
        """
        owner = token_owners(self.modalities)

        def encode(split: Split) -> dict[str, Array]:
            rows, chunk = self.rows(split), self.config.training.batch_size
            mean, std = encode_rows(
                lambda params, data: self._posterior(params, as_float(data)), params, rows["data"], chunk
            )
            if "present" not in rows:
                return {"mean": mean, "std": std}
            has = jnp.asarray(rows["present"])
            mean, std = (jnp.where(by_token(has, owner)[:, :, None], array, 0.0) for array in (mean, std))
            return {"mean": mean, "std": std, "present": has}

        train, validation = encode(dataset.train), encode(dataset.validation)
        present = by_token(train["present"], owner) if "present" in train else None
        statistics = latent_statistics(train["mean"], train["std"], jnp.asarray(self.valid), present)
        return {"train": train, "validation": validation, "statistics": dataclasses.asdict(statistics)}

    def _posterior(self, params: Params, data: Data) -> tuple[Array, Array]:
        """Return packed posterior means and standard deviations [B, N, D]; the latter are 0 for RAE."""
        posteriors = self.autoencoders.encode(params, data)
        mean = pack({name: mean for name, (mean, _) in posteriors.items()}, self.modalities)
        if self.regularised:
            return mean, jnp.zeros_like(mean)
        std = {name: jnp.exp(0.5 * log_variance) for name, (_, log_variance) in posteriors.items()}
        return mean, pack(std, self.modalities)

    # MARK: Use

    def bank(self, products: Mapping[str, Params], split: str) -> dict[str, Array]:
        """Return the posterior means and standard deviations [rows, N, D] of ``"train"`` or ``"validation"``.

        Where rows lack modalities, ``present``, bool [rows, M], tells which.
        """
        found = products[self.bank_stage][split]
        bank = {name: self._select(found[name], 1) for name in ("mean", "std")}
        if "present" in found:
            bank["present"] = found["present"][:, self._chosen] if self.trained else found["present"]
        return bank

    def statistics(self, products: Mapping[str, Params]) -> LatentStatistics:
        """Return the moments of the latent bank."""
        found = LatentStatistics(**products[self.bank_stage]["statistics"])
        num_tokens, size = found.mean.shape
        correlation = found.correlation.reshape(num_tokens, size, num_tokens, size)
        correlation = self._select(self._select(correlation, 2), 0)
        entries = self.valid.size
        return LatentStatistics(
            self._select(found.mean, 0), self._select(found.std, 0), correlation.reshape(entries, entries)
        )

    @property
    def _chosen(self) -> np.ndarray:
        """The numbers of this space's modalities among those that are trained."""
        names = [modality.name for modality in self.trained]
        return np.array([names.index(modality.name) for modality in self.modalities])

    def _select(self, array: Array, axis: int) -> Array:
        """Return this space's part of an array over all trained tokens at `axis`, and entries at the next."""
        if not self.trained:
            return array
        owner = np.array(token_owners(self.trained))
        tokens = np.concatenate([np.flatnonzero(owner == number) for number in self._chosen])
        array = jnp.take(array, tokens, axis=axis)
        return jax.lax.slice_in_dim(array, 0, self.valid.shape[1], axis=axis + 1)

    def encode(self, products: Mapping[str, Params], data: Data) -> Array:
        """Return the packed posterior means [B, N, D] of float data, standardised as the score model sees them."""
        mean, _ = self._posterior(products[self.autoencoder_stage], data)
        return jnp.where(jnp.asarray(self.valid)[None], self.statistics(products).standardise(mean), 0.0)

    def decode(self, products: Mapping[str, Params], z: Array) -> dict[str, Array]:
        """Return the expected data of packed, standardised latents [B, N, D]."""
        latents = unpack(self.statistics(products).restore(z), self.modalities)
        return self.autoencoders.decode_mean(products[self.autoencoder_stage], latents)

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return the autoencoders' reconstruction, from the posterior means, of float data."""
        params = products[self.autoencoder_stage]
        means = {name: mean for name, (mean, _) in self.autoencoders.encode(params, data).items()}
        return self.autoencoders.decode_mean(params, means)

    def posterior(self, products: Mapping[str, Params], data: Data) -> tuple[Array, Array]:
        """Return packed posterior means and standard deviations [B, N, D] of float data, not standardised."""
        return self._posterior(products[self.autoencoder_stage], data)

    def log_likelihood(self, products: Mapping[str, Params], data: Data, z: Array) -> Array:
        """Return log p(x_m | z_m) [S, B, M] of float data given packed latents [S, B, N, D], in nats."""
        params = products[self.autoencoder_stage]
        latents = unpack(z, self.modalities)
        decoding = Decoding(
            self.modalities, lambda latents: self.autoencoders.decode(params, latents), data, (1.0,) * len(latents)
        )
        return decoding.log_likelihood(latents)
