"""Stage I: the autoencoder of each modality, its codec, and the bank of all training latents.

Shared by all systems that put a model over the latents of unimodal autoencoders. How these are trained is in
`systems.codec_training`.
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
    """The latents of all modalities.

    Attributes:
      modalities: M modalities, in the order of every mask.
      config: see `AutoencoderConfig`.
      seed: the run's seed, part of every stage's fingerprint.
      regularised: True for deterministic, regularised autoencoders (RAE), False for VAEs.
      batched: compute modalities of equal settings by one `vmap` (see `PerModality`); None for all but CPU.
      encoded: the modalities that stage I encodes, those of the space among them; () for the same. Each codec
        stands alone, so that spaces of several sizes share one stage I. Aligned ones do not: they would know of
        modalities that are outside the space.
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
        """Whether modalities of equal settings are computed by one `vmap`."""
        return jax.default_backend() != "cpu" if self.batched is None else self.batched

    @property
    def codecs(self) -> Codecs:
        """The codecs of all modalities that stage I encodes."""
        return Codecs(self.whole, self.config.network, self.computes_batched)

    @property
    def autoencoder(self) -> str:
        """Return ``"vae"``, ``"rae"``, or ``"ae"`` where nothing regularises a deterministic autoencoder."""
        if not self.regularised:
            return "vae"
        return "rae" if self.config.rae_beta or self.config.rae_noise else "ae"

    @property
    def trainings(self) -> tuple[CodecTraining, ...]:
        """The stages of the codecs: one for each, for those of equal settings, or for aligned ones."""
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
        """Bool [N, D], False on the padding of shorter tokens."""
        return valid_entries(self.modalities)

    def params(self, products: Mapping[str, Params]) -> Params:
        """Return the parameters of all codecs, as those of `codecs`."""
        return {name: own for training in self.trainings for name, own in products[training.name].items()}

    def codec_params(self, products: Mapping[str, Params], name: str) -> Params:
        """Return the parameters of one modality's codec, as those of `networks.codecs.Codec`."""
        return self.codecs.per_modality.own(self.params(products), name)

    def check(self) -> None:
        """Raise `SbmError` for codecs that can not work, by tracing shapes, and for files of others' parameters."""
        for modality in self.whole:
            check_codec(make_codec(modality, self.config.network))
        for training in self.trainings:
            if training.is_loaded:
                training.load()
            else:
                training.check_start()

    # MARK: Stages

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the stages of the codecs and the latent bank, of all modalities that stage I encodes."""
        codecs = [stage for training in self.trainings for stage in training.stages(dataset)]
        return [*codecs, dataclasses.replace(self, modalities=self.whole, encoded=())._make_bank_stage(dataset)]

    def rows(self, split: Split) -> Any:
        """Return what stage I is trained on; see `types.Split.rows`."""
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
        """Return posterior means and standard deviations [rows, N, D] of both splits, and their statistics.

        Where rows lack modalities, there is ``present`` besides, bool [rows, M], and their entries are 0.
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
        """Return packed posterior means and standard deviations [B, N, D]; the latter are 0 for RAE."""
        posteriors = self.codecs.encode(params, data)
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
        """The numbers of this space's modalities among those that stage I encodes."""
        names = [modality.name for modality in self.encoded]
        return np.array([names.index(modality.name) for modality in self.modalities])

    def _select(self, array: Array, axis: int) -> Array:
        """Return this space's part of an array over all encoded tokens at `axis`, and entries at the next."""
        if not self.encoded:
            return array
        owner = np.array(token_owners(self.encoded))
        tokens = np.concatenate([np.flatnonzero(owner == number) for number in self._chosen])
        array = jnp.take(array, tokens, axis=axis)
        return jax.lax.slice_in_dim(array, 0, self.valid.shape[1], axis=axis + 1)

    def encode(self, products: Mapping[str, Params], data: Data) -> Array:
        """Return the packed posterior means [B, N, D] of float data, standardised as the score model sees them."""
        mean, _ = self._posterior(self.params(products), data)
        return jnp.where(jnp.asarray(self.valid)[None], self.statistics(products).standardise(mean), 0.0)

    def restore(self, products: Mapping[str, Params], z: Array) -> dict[str, Array]:
        """Return what the codecs decode {name: [B, D_m]} of packed, standardised latents [B, N, D]."""
        return unpack(self.statistics(products).restore(z), self.modalities)

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return the codecs' reconstruction, from the posterior means, of float data; the same whenever a row comes."""
        params = self.params(products)
        means = {name: mean for name, (mean, _) in self.codecs.encode(params, data).items()}
        return self.codecs.generate(params, jax.random.key(0), means, row_numbers=numbers_of(data))

    def draw_reconstructions(
        self, products: Mapping[str, Params], key: Key, data: Data, present: Array | None = None
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return what the decoders make of posterior samples of float data, and these as the score model sees them."""
        del present  # each modality is decoded from its own latent
        posterior_key, key = jax.random.split(key)
        params, statistics = self.params(products), self.statistics(products)
        z = sample_posterior(posterior_key, *self._posterior(params, data))
        standardised = jnp.where(jnp.asarray(self.valid)[None], statistics.standardise(z), 0.0)
        return self.codecs.generate(params, key, unpack(z, self.modalities)), unpack(standardised, self.modalities)

    def posteriors(self, products: Mapping[str, Params], data: Data) -> dict[str, tuple[Array, Array | None]]:
        """Return {name: (mean, log variance)}, [B, D_m] each, of float data, as the codecs have them; None for RAE."""
        found = self.codecs.encode(self.params(products), data)
        return {name: (mean, None if self.regularised else own) for name, (mean, own) in found.items()}

    def posterior(self, products: Mapping[str, Params], data: Data) -> tuple[Array, Array]:
        """Return packed posterior means and standard deviations [B, N, D] of float data, not standardised."""
        return self._posterior(self.params(products), data)

    def log_likelihood(self, products: Mapping[str, Params], key: Key, data: Data, z: Array) -> Array:
        """Return log p(x_m | z_m), or its bound, [S, B, M] of float data given packed latents [S, B, N, D], in nats."""
        terms = self.codecs.log_prob(self.params(products), key, data, unpack(z, self.modalities))
        return jnp.stack([terms[modality.name] for modality in self.modalities], axis=-1)
