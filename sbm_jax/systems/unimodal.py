"""Stage I: the unimodal autoencoders (codecs) and the bank of all training latents.

Shared by all systems that model the latents of unimodal autoencoders. For their training, see `systems.codec_training`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sbm_jax.data.pipeline import in_units
from sbm_jax.networks.codecs import Codecs, check_codec, make_codec
from sbm_jax.networks.per_modality import PerModality
from sbm_jax.systems.codec_training import AutoencoderConfig, CodecTraining
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
from sbm_jax.systems.observed import numbers_of
from sbm_jax.tokens import by_token
from sbm_jax.types import Array, Data, Dataset, Key, Modality, Params, Split, Stage


@dataclasses.dataclass(frozen=True)
class LatentSpace:
    """The joint latent space of all modalities.

    Attributes:
      modalities: M modalities, in mask order.
      config: see `AutoencoderConfig`.
      seed: the run's seed, part of every stage's fingerprint.
      regularised: True for deterministic, regularised autoencoders (RAE), False for VAEs.
      batched: compute modalities with equal settings in one `vmap` (see `PerModality`); None for True except on CPU.
      encoded: modalities that stage I encodes, a superset of `modalities`; () for the same. Codecs are independent, so
        spaces of several sizes share one stage I. Aligned codecs are not: they would learn from modalities outside the
        space.
    """

    modalities: tuple[Modality, ...]
    config: AutoencoderConfig
    seed: int = 0
    regularised: bool = False
    batched: bool | None = None
    encoded: tuple[Modality, ...] = ()

    def __post_init__(self):
        for training in self.trainings:
            training.check()

    @property
    def whole(self) -> tuple[Modality, ...]:
        """The modalities that stage I encodes."""
        return self.encoded or self.modalities

    @property
    def computes_batched(self) -> bool:
        """Whether to compute modalities with equal settings in one `vmap`."""
        return jax.default_backend() != "cpu" if self.batched is None else self.batched

    @property
    def codecs(self) -> Codecs:
        """The codecs of all modalities that stage I encodes."""
        return Codecs(self.whole, self.config.network, self.computes_batched)

    @property
    def autoencoder(self) -> str:
        """Type of the autoencoders: ``"vae"``, ``"rae"``, or ``"ae"`` for unregularised deterministic ones."""
        if not self.regularised:
            return "vae"
        return "rae" if self.config.rae_beta or self.config.rae_noise else "ae"

    @property
    def trainings(self) -> tuple[CodecTraining, ...]:
        """Trainings of the codecs: one per codec, per group with equal settings, or for all aligned codecs."""
        groups = PerModality(self.whole, self.computes_batched).groups
        named = {}
        for first, group in groups.items():
            more = len(group) - 1
            name = f"autoencoders_{self.autoencoder}_{first}_and_{more}_more"
            named[name if more else f"autoencoder_{self.autoencoder}_{first}"] = group
        if self.config.alignment:
            named = {f"aligned_autoencoders_{self.autoencoder}": self.whole}
        elif len(groups) == 1 and len(self.whole) > 1:
            named = {f"autoencoders_{self.autoencoder}": self.whole}
        own = (self.config, self.seed, self.regularised, self.computes_batched)
        return tuple(CodecTraining(name, tuple(modalities), *own) for name, modalities in named.items())

    @property
    def bank_stage(self) -> str:
        """The name of the stage that encodes all training data."""
        return f"latents_{self.autoencoder}"

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of all stages."""
        return *(training.name for training in self.trainings), self.bank_stage

    @property
    def valid(self) -> np.ndarray:
        """Mask, bool [N, D]: False on the padding of shorter tokens."""
        return valid_entries(self.modalities)

    def params(self, products: Mapping[str, Params]) -> Params:
        """Return the parameters of `codecs`."""
        return {name: own for training in self.trainings for name, own in products[training.name].items()}

    def codec_params(self, products: Mapping[str, Params], name: str) -> Params:
        """Return the parameters of one modality's `networks.codecs.Codec`."""
        return self.codecs.per_modality.own(self.params(products), name)

    def check(self) -> None:
        """Raise `SbmError` for codecs that cannot work, by tracing shapes, and for weight files that do not fit."""
        for modality in self.whole:
            check_codec(make_codec(modality, self.config.network))
        for training in self.trainings:
            if training.is_loaded:
                training.load()
            else:
                training.check_start()

    # MARK: Stages

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the stages of the codecs and the latent bank, for all modalities that stage I encodes."""
        codecs = [stage for training in self.trainings for stage in training.stages(dataset)]
        return [*codecs, dataclasses.replace(self, modalities=self.whole, encoded=())._make_bank_stage(dataset)]

    def rows(self, split: Split) -> Any:
        """Return the rows that stage I trains on; see `types.Split.rows`."""
        return split.rows([modality.name for modality in self.modalities])

    def _make_bank_stage(self, dataset: Dataset) -> Stage:
        return Stage(
            name=self.bank_stage,
            settings={
                "data": dataset.settings,
                "tokens": [[m.name, m.latent_size, m.num_tokens] for m in self.whole],  # in this order
            },
            requires=self.stage_names[:-1],
            init=lambda key, upstream: self._bank(self.params(upstream), dataset),
        )

    def _bank(self, params: Params, dataset: Dataset) -> Params:
        """Return posterior means and standard deviations [rows, N, D] of both splits, and the training statistics.

        If rows lack modalities, add ``present``, bool [rows, M]; entries of missing modalities are 0.
        """
        owner = token_owners(self.modalities)

        def encode(split: Split) -> dict[str, Array]:
            rows, chunk = self.rows(split), self.config.training.batch_size
            mean, std = encode_rows(
                lambda params, rows: self._posterior(params, in_units(rows["data"])), params, rows, chunk
            )
            if split.present is None:
                return {"mean": mean, "std": std}
            has = jnp.asarray(split.presence([modality.name for modality in self.modalities]))
            mean, std = (jnp.where(by_token(has, owner)[:, :, None], array, 0.0) for array in (mean, std))
            return {"mean": mean, "std": std, "present": has}

        train, validation = encode(dataset.train), encode(dataset.validation)
        present = by_token(train["present"], owner) if "present" in train else None
        statistics = latent_statistics(train["mean"], train["std"], jnp.asarray(self.valid), present)
        return {"train": train, "validation": validation, "statistics": dataclasses.asdict(statistics)}

    def _posterior(self, params: Params, data: Data) -> tuple[Array, Array]:
        """Return packed posterior means and standard deviations [B, N, D]; the latter are 0 for RAEs."""
        posteriors = self.codecs.encode(params, data)
        mean = pack({name: mean for name, (mean, _) in posteriors.items()}, self.modalities)
        if self.regularised:
            return mean, jnp.zeros_like(mean)
        std = {name: jnp.exp(0.5 * log_variance) for name, (_, log_variance) in posteriors.items()}
        return mean, pack(std, self.modalities)

    # MARK: Use

    def bank(self, products: Mapping[str, Params], split: str) -> dict[str, Array]:
        """Return ``mean`` and ``std`` of the posteriors [rows, N, D] of ``"train"`` or ``"validation"``.

        If rows lack modalities, ``present``, bool [rows, M], marks those that they have.
        """
        found = products[self.bank_stage][split]
        bank = {name: self._select(found[name], 1) for name in ("mean", "std")}
        if "present" in found:
            bank["present"] = found["present"][:, self._chosen] if self.encoded else found["present"]
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
        """Indices of this space's modalities among those that stage I encodes."""
        names = [modality.name for modality in self.encoded]
        return np.array([names.index(modality.name) for modality in self.modalities])

    def _select(self, array: Array, axis: int) -> Array:
        """Select this space's part of an array with all encoded tokens at `axis` and their entries at the next axis."""
        if not self.encoded:
            return array
        owner = np.array(token_owners(self.encoded))
        tokens = np.concatenate([np.flatnonzero(owner == number) for number in self._chosen])
        array = jnp.take(array, tokens, axis=axis)
        return jax.lax.slice_in_dim(array, 0, self.valid.shape[1], axis=axis + 1)

    def encode(self, products: Mapping[str, Params], data: Data) -> Array:
        """Return the packed posterior means [B, N, D] of float data, standardised for the score model."""
        mean, _ = self._posterior(self.params(products), data)
        return jnp.where(jnp.asarray(self.valid)[None], self.statistics(products).standardise(mean), 0.0)

    def restore(self, products: Mapping[str, Params], z: Array) -> dict[str, Array]:
        """Undo packing and standardising of latents [B, N, D]: decoder inputs {name: [B, D_m]}."""
        return unpack(self.statistics(products).restore(z), self.modalities)

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Reconstruct float data from the posterior means; deterministic for each row."""
        params = self.params(products)
        means = {name: mean for name, (mean, _) in self.codecs.encode(params, data).items()}
        return self.codecs.generate(params, jax.random.key(0), means, row_numbers=numbers_of(data))

    def draw_reconstructions(
        self, products: Mapping[str, Params], key: Key, data: Data, present: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return reconstructions of float data from posterior samples, and the samples, standardised."""
        del present  # each modality is decoded from its own latent
        posterior_key, key = jax.random.split(key)
        params, statistics = self.params(products), self.statistics(products)
        z = sample_posterior(posterior_key, *self._posterior(params, data))
        standardised = jnp.where(jnp.asarray(self.valid)[None], statistics.standardise(z), 0.0)
        return self.codecs.generate(params, key, unpack(z, self.modalities)), unpack(standardised, self.modalities)

    def posteriors(self, products: Mapping[str, Params], data: Data) -> dict[str, tuple[Array, Array | None]]:
        """Return the codecs' posteriors of float data, {name: (mean, log variance or None for RAEs)}, [B, D_m] each."""
        found = self.codecs.encode(self.params(products), data)
        return {name: (mean, None if self.regularised else own) for name, (mean, own) in found.items()}

    def posterior(self, products: Mapping[str, Params], data: Data) -> tuple[Array, Array]:
        """Return packed, unstandardised posterior means and standard deviations [B, N, D] of float data."""
        return self._posterior(self.params(products), data)

    def log_likelihood(self, products: Mapping[str, Params], key: Key, data: Data, z: Array) -> Array:
        """Return log p(x_m | z_m) or its bound [S, B, M] for float data and packed latents [S, B, N, D], in nats."""
        terms = self.codecs.log_prob(self.params(products), key, data, unpack(z, self.modalities))
        return jnp.stack([terms[modality.name] for modality in self.modalities], axis=-1)
