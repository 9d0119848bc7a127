"""Trains the modalities' codecs, the autoencoders of stage I.

They are trained independently, as in the paper, or with some entries of their latents aligned (ours): contrastive
losses make these entries agree across the modalities of a row, and make reconstructions show what they encode. Squared
errors alone hardly notice shared content that is a small part of the image, such as a thin digit on a photograph:
decoders omit it, and what the score model has to learn is hard to find in the latents.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from sbm_jax.config import changed, checked_dataclass, plain
from sbm_jax.data.pipeline import in_units
from sbm_jax.distributions import standard_normal_kl
from sbm_jax.errors import SbmError, require
from sbm_jax.losses.info_nce import has_pair, info_nce_terms
from sbm_jax.losses.masked import masked_mean
from sbm_jax.networks.codecs import (
    AutoencoderNetworkConfig,
    Codecs,
    Pretrained,
    files,
    make_codec,
    training_settings,
)
from sbm_jax.systems.latents import sample_posterior
from sbm_jax.systems.pretrained_start import check_start, start_stage, started
from sbm_jax.types import Array, Data, Dataset, Key, Metrics, Modality, Params, Stage, TrainingConfig


@checked_dataclass
class AutoencoderConfig:
    """Options of stage I; a modality's `CodecConfig` overrides them.

    Attributes:
      training: see `types.TrainingConfig`.
      network: sizes of the encoders and decoders.
      beta: weight of the KL divergence (VAE), relative to -log p(x | z) in nats.
      rae_beta: weight of ‖z‖² (RAE, Eq. 10), relative to -log p(x | z) in nats: half the precision of a Gaussian prior.
        The paper's is relative to the squared error, which is -log p(x | z) with a scale of 0.5**0.5; a learned scale
        shrinks in training, and with it the effect of this weight.
      rae_noise: standard deviation of the noise added to z before decoding (RAE).
      alignment: weight of the contrastive losses between modalities; 0 trains all autoencoders independently.
      aligned_size: number of leading entries of every latent that the contrastive losses use.
    """

    training: TrainingConfig = TrainingConfig()
    network: AutoencoderNetworkConfig = AutoencoderNetworkConfig()
    beta: float = 1.0
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
"""τ of `info_nce_terms`; fixed, because a learned one would be the only parameter outside the autoencoders."""


def training_of(modality: Modality, config: AutoencoderConfig) -> TrainingConfig:
    """Return the training options of a modality's codec: the config's, with the modality's own changes."""
    return changed(config.training, modality.codec.training, f"modality {modality.name!r}: codec.training")


@dataclasses.dataclass(frozen=True)
class CodecTraining:
    """Codecs that are trained together, on the sum of their objectives, or loaded from files.

    Attributes:
      name: name of the stage.
      modalities: modalities of the codecs: aligned ones, or ones that differ only in their name.
      config: see `AutoencoderConfig`.
      seed: the run's seed.
      regularised: True for RAEs, False for VAEs.
      batched: see `PerModality`.
    """

    name: str
    modalities: tuple[Modality, ...]
    config: AutoencoderConfig
    seed: int
    regularised: bool
    batched: bool

    def check(self) -> None:
        """Raise `SbmError` for settings that cannot work, alone or in combination."""
        first = training_of(self.modalities[0], self.config)
        if not self.config.alignment:
            return
        if len(self.modalities) < 2:
            raise SbmError("autoencoder.alignment needs two modalities or more; set it to 0 for a single one.")
        smallest = min(modality.latent_size for modality in self.modalities)
        if self.config.aligned_size > smallest:
            raise SbmError(
                f"autoencoder.aligned_size is {self.config.aligned_size}, but the smallest latent has {smallest} "
                "entries. Lower the size, or enlarge that latent."
            )
        for modality in self.modalities:
            if modality.codec.weights or self._is_frozen(modality) or training_of(modality, self.config) != first:
                raise SbmError(
                    f"modality {modality.name!r} has codec.weights, is frozen, or differs in codec.training from "
                    f"{self.modalities[0].name!r}, but aligned codecs are trained together. Leave that out, or set "
                    "autoencoder.alignment to 0."
                )

    def check_start(self) -> None:
        """Raise `SbmError` for pretrained weights that training cannot start from."""
        check_start(self.codecs, training_of(self.modalities[0], self.config).optimizer)

    @property
    def codecs(self) -> Codecs:
        """The codecs of the modalities."""
        return Codecs(self.modalities, self.config.network, self.batched)

    @property
    def is_loaded(self) -> bool:
        """Whether the codecs are loaded from files, without training."""
        return all(modality.codec.weights or self._is_frozen(modality) for modality in self.modalities)

    def _is_frozen(self, modality: Modality) -> bool:
        codec = make_codec(modality, self.config.network)
        return isinstance(codec, Pretrained) and codec.is_frozen

    def beta(self, modality: Modality) -> float:
        """Return the weight of a modality's regulariser."""
        return self._own(modality, "rae_beta" if self.regularised else "beta")

    def _own(self, modality: Modality, name: str) -> float:
        """Return an option of a modality's codec, or the shared one if it sets none."""
        value = getattr(modality.codec, name)
        return getattr(self.config, name) if value is None else value

    # MARK: Stages

    def _settings(self, modality: Modality) -> dict[str, Any]:
        """Return the settings of a modality that training depends on, not those of the other type of autoencoder."""
        unused = ("beta",) if self.regularised else ("rae_beta", "rae_noise")
        codec = dataclasses.replace(modality.codec, **dict.fromkeys(unused))
        return training_settings(dataclasses.replace(modality, num_tokens=1, codec=codec))

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the stage that trains or loads the codecs, after that of pretrained weights, if any."""
        stage, start = self._stage(dataset), None if self.is_loaded else start_stage(self.name, self.codecs)
        if start is None:
            return [stage]
        init = stage.init

        def started_init(key: Key, upstream: Mapping[str, Params]) -> Params:
            return started(init(key, upstream), upstream[start.name])

        return [start, dataclasses.replace(stage, requires=(start.name,), init=started_init)]

    def _stage(self, dataset: Dataset) -> Stage:
        names = [modality.name for modality in self.modalities]
        if self.is_loaded:
            named = [modality.with_latents(modality.latent_size) for modality in self.modalities]
            return Stage(
                name=self.name,
                settings={
                    "modalities": [training_settings(modality) for modality in named],
                    "network": plain(self.config.network),
                    "weights": [files.digest(path) for modality in self.modalities for path in self._files(modality)],
                },
                init=lambda key, upstream: self.load(),
            )
        training = training_of(self.modalities[0], self.config)
        return Stage(
            name=self.name,
            settings={
                "seed": self.seed,
                "data": dataset.settings,
                "modalities": [self._settings(modality) for modality in self.modalities],
                "autoencoder": plain(dataclasses.replace(self.config, training=training)),
                "regularised": self.regularised,
            },
            init=lambda key, upstream: self.codecs.init(key),
            loss=self.loss,
            rows=lambda upstream: dataset.train.rows(names),
            validation_rows=lambda upstream: dataset.validation.rows(names),
            validation_loss=functools.partial(self.loss, train=False),
            training=training,
        )

    def _files(self, modality: Modality) -> list[str]:
        """Return the files that the codec of a modality is loaded from."""
        if modality.codec.weights:
            return [modality.codec.weights]
        return [*make_codec(modality, self.config.network).files.values()]

    def load(self) -> Params:
        """Load the parameters of the codecs from their files.

        Raises:
          SbmError: if a file cannot be read or belongs to another codec.
        """
        loaded = []
        for modality in self.modalities:
            codec = make_codec(modality, self.config.network)
            like = jax.eval_shape(codec.init, jax.random.key(0))
            if modality.codec.weights:
                loaded.append(files.load(modality.codec.weights, like, modality.name))
            else:
                loaded.append(_all_read(codec, like, modality.name))
        return {self.modalities[0].name: jax.tree.map(lambda *leaves: jnp.stack(leaves), *loaded)}

    # MARK: Objective

    def loss(
        self,
        params: Params,
        upstream: Mapping[str, Params],
        key: Key,
        batch: Mapping[str, Any],
        train: bool = True,
    ) -> tuple[Array, Metrics]:
        """Return the weighted sum of the modalities' objectives, each averaged over the rows that have the modality."""
        del upstream
        data, present = in_units(batch["data"]), batch.get("present")
        posteriors, latents, outputs = self.autoencode(params, key, data)
        reconstructions, regularisers = self._terms(params, key, data, posteriors, outputs, train)
        names = [modality.name for modality in self.modalities]
        has = dict.fromkeys(names) if present is None else dict(zip(names, present.T, strict=True))
        reconstructions = {name: masked_mean(reconstructions[name], has[name]) for name in names}
        regularisers = {name: masked_mean(regularisers[name], has[name]) for name in names}
        loss = sum(
            modality.codec.weight * (reconstructions[modality.name] + self.beta(modality) * regularisers[modality.name])
            for modality in self.modalities
        )
        metrics = {"reconstruction": sum(reconstructions.values()), "regulariser": sum(regularisers.values())}
        if len(names) > 1:
            metrics |= {f"reconstruction/{name}": value for name, value in reconstructions.items()}
            metrics |= {f"regulariser/{name}": value for name, value in regularisers.items()}
        if self.config.alignment:
            alignment, recognition = self.alignment(params, key, latents, outputs, present)
            loss = loss + self.config.alignment * (alignment + recognition)
            metrics |= {"alignment": alignment, "recognition": recognition}
        return loss, metrics

    def autoencode(
        self, params: Params, key: Key, data: Data
    ) -> tuple[dict[str, tuple[Array, Array]], dict[str, Array], dict[str, Array]]:
        """Return the posteriors, latents sampled from them, and the decoders' raw outputs."""
        posteriors = self.codecs.encode(params, data)
        keys = dict(zip(posteriors, jax.random.split(key, len(posteriors)), strict=True))
        noise = {modality.name: self._own(modality, "rae_noise") for modality in self.modalities}
        latents = {
            name: sample_posterior(keys[name], mean, noise[name] if self.regularised else jnp.exp(0.5 * log_variance))
            for name, (mean, log_variance) in posteriors.items()
        }
        return posteriors, latents, self.codecs.decode(params, latents)

    def _terms(
        self,
        params: Params,
        key: Key,
        data: Data,
        posteriors: Mapping[str, tuple[Array, Array]],
        outputs: Mapping[str, Array],
        train: bool,
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Return -log p(x | z), or its bound, and the unweighted regulariser, both {name: [B]}.

        The regulariser of a VAE is KL(q(z | x) ‖ N(0, I)) (Eq. 1), that of an RAE ‖z‖² (Eq. 10, without the decoder's).
        """
        reconstructions = self.codecs.loss(params, key, data, outputs, train)
        if self.regularised:
            return reconstructions, {name: jnp.sum(jnp.square(z), axis=-1) for name, (z, _) in posteriors.items()}
        return reconstructions, {name: standard_normal_kl(*posterior) for name, posterior in posteriors.items()}

    def alignment(
        self,
        params: Params,
        key: Key,
        latents: Mapping[str, Array],
        outputs: Mapping[str, Array],
        present: Array | None = None,
    ) -> tuple[Array, Array]:
        """Return the contrastive losses of latents and of reconstructions, both scalars.

        The first makes encoders extract what modalities share; the second makes decoders show it: a reconstruction,
        encoded again with frozen weights, must retrieve the latents of the other modalities. Reconstructed ids pass no
        gradient, and images sampled step by step only through all steps, so for both the original latents stand in for
        the re-encoded ones.
        """
        aligned, log_scale = self._aligned(latents), jnp.log(ALIGNMENT_INVERSE_TEMPERATURE)
        ids = {modality.name for modality in self.modalities if modality.vocabulary_size}
        unseen = ids | {*self.codecs.evaluations}
        shown = self.codecs.sample(params, key, {name: out for name, out in outputs.items() if name not in unseen})
        seen = self.codecs.encode(jax.lax.stop_gradient(params), shown)
        seen = self._aligned({**latents, **{name: mean for name, (mean, _) in seen.items()}})
        alignment, _ = info_nce_terms(aligned, log_scale, present=present)
        recognition, _ = info_nce_terms(seen, log_scale, jax.lax.stop_gradient(aligned), present)
        paired = has_pair(present)
        return masked_mean(alignment, paired), masked_mean(recognition, paired)

    def _aligned(self, latents: Mapping[str, Array]) -> Array:
        """Return the aligned entries of all modalities as unit vectors [B, M, E]."""
        size = self.config.aligned_size
        aligned = jnp.stack([latents[modality.name][:, :size] for modality in self.modalities], axis=1)
        return aligned / jnp.linalg.norm(aligned, axis=-1, keepdims=True)


def _all_read(codec: Pretrained, like: Params, name: str) -> Params:
    """Read the parameters of a frozen codec, all of which its files must contain."""
    found = codec.read()
    missing = sorted({*flatten_dict(like, sep="/")} - {*flatten_dict(found, sep="/")})
    if missing:
        raise SbmError(
            f"modality {name!r}: all of the codec is frozen (codec.network.frozen), but its files lack {missing[0]} "
            f"({len(missing)} such parameters). Name files that have them, or train that part."
        )
    return found
