"""Auxiliary priors for the latents of a trained multimodal VAE, used for unconditional samples.

Decoders are trained on posterior samples, whose distribution N(0, I) does not match. A score model (``_score``, the
unconditional sampler of Diff-MVAE) or a Gaussian mixture (``_mixture``) is trained on a bank of the posteriors of all
training rows. Conditional generation is unchanged.

Reference: D. Wesego and P. Rooshenas, "Multimodal ELBO with Diffusion Decoders", 2024, section 3.4 and Table 4 of the
supplement. https://arxiv.org/abs/2408.16883
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.mixture import GaussianMixture as MixtureFit

from sbm_jax.data.pipeline import in_units
from sbm_jax.errors import SbmError
from sbm_jax.mixtures import GaussianMixture
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.joining import Joining
from sbm_jax.systems.joinings import JOININGS
from sbm_jax.systems.joint_latents import Latents
from sbm_jax.systems.joint_posterior import JointPosterior
from sbm_jax.systems.joint_posterior_config import JointPosteriorConfig
from sbm_jax.systems.latents import LatentStatistics, encode_rows, latent_statistics, pack, unpack, valid_entries
from sbm_jax.systems.method import Method, Shared
from sbm_jax.systems.sbm import Sbm
from sbm_jax.systems.score_stage import SbmConfig
from sbm_jax.types import Array, Dataset, Key, Modality, Params, Stage


@dataclasses.dataclass(frozen=True)
class PosteriorBank:
    """Posteriors of all training rows, as the latent space of a score model.

    Its modalities are the parts of the decoder inputs: the joint latent and any private ones.

    Attributes:
      system: the trained autoencoder.
    """

    system: JointPosterior

    @property
    def parts(self) -> tuple[Modality, ...]:
        """The joint latent and any private ones, as modalities of the score model."""
        size, own_size = self.system.sizes
        own = [(f"private_{modality.name}", own_size) for modality in self.system.modalities if own_size]
        return tuple(Modality(name, (size,), size) for name, size in [("joint", size), *own])

    @property
    def valid(self) -> np.ndarray:
        """Mask, bool [parts, D]: False on the padding of shorter latents."""
        return valid_entries(self.parts)

    @property
    def bank_stage(self) -> str:
        """The name of the stage that encodes all training data."""
        return f"latents_{self.system.method}"

    def make_stage(self, dataset: Dataset) -> Stage:
        """Return the stage that encodes all training data."""

        def init(key: Key, upstream: Mapping[str, Params]) -> Params:
            params, chunk = upstream[self.system.method], self.system.config.training.batch_size
            bank = {}
            for i, (name, split) in enumerate({"train": dataset.train, "validation": dataset.validation}.items()):
                names = [modality.name for modality in self.system.modalities]
                rows, present = split.rows(names, number=np.arange(len(split))), split.presence(names)
                own_key = jax.random.fold_in(key, i)
                bank[name] = encode_rows(lambda whole, rows: self._encode(*whole, rows), (params, own_key), rows, chunk)
                # Nothing is known about the private latent of a missing modality.
                if present is not None and len(self.parts) > 1:
                    joint = np.ones((len(split), 1), bool)
                    bank[name]["present"] = jnp.asarray(np.concatenate([joint, present], axis=1))
            train = bank["train"]
            spread = train["scale"] * self.system.joining.family.std
            statistics = latent_statistics(train["mean"], spread, jnp.asarray(self.valid), train.get("present"))
            return bank | {"statistics": dataclasses.asdict(statistics)}

        return Stage(name=self.bank_stage, settings={}, requires=(self.system.method,), init=init)

    def _encode(self, params: Params, key: Key, rows: Mapping[str, Any]) -> dict[str, Array]:
        """Return location and scale [B, parts, D] of each row's posterior, or of a random component of a mixture."""
        key = jax.random.fold_in(key, rows["number"][0])  # a new key for each batch
        location, scale, own_location, own_scale = self.system.posterior_parts(
            params, key, in_units(rows["data"]), rows.get("present")
        )

        def packed(joint: Array, own: Array) -> Array:
            return pack(dict(zip([part.name for part in self.parts], [joint, *own], strict=False)), self.parts)

        return {"mean": packed(location, own_location), "scale": packed(scale, own_scale)}

    def bank(self, products: Mapping[str, Params], split: str) -> Params:
        """Return locations ``mean`` and scales ``scale`` [N, parts, D] of ``"train"`` or ``"validation"``.

        If rows lack private parts, ``present``, bool [N, parts], marks those that they have.
        """
        return products[self.bank_stage][split]

    def statistics(self, products: Mapping[str, Params]) -> LatentStatistics:
        """Return the moments of the bank."""
        return LatentStatistics(**products[self.bank_stage]["statistics"])

    def draw(self, key: Key, rows: Mapping[str, Array], statistics: LatentStatistics) -> Array:
        """Sample standardised latents [B, parts, D] from the posteriors of bank rows."""
        noise = self.system.joining.noise(key, rows["mean"].shape)
        z = self.system.joining.family.sample(rows["mean"], rows["scale"], noise)
        return jnp.where(jnp.asarray(self.valid)[None], statistics.standardise(z), 0.0)

    def pack(self, latents: Latents, statistics: LatentStatistics) -> Array:
        """Pack and standardise latents: [B * S, parts, D]."""
        own = jnp.moveaxis(latents.private, 2, 0) if latents.private.shape[-1] else ()
        flat = [array.reshape(-1, array.shape[-1]) for array in (latents.joint, *own)]
        z = pack(dict(zip([part.name for part in self.parts], flat, strict=False)), self.parts)
        return jnp.where(jnp.asarray(self.valid)[None], statistics.standardise(z), 0.0)

    def unpack(self, z: Array, statistics: LatentStatistics, batch: int) -> Latents:
        """Undo `pack` for latents [B * S, parts, D] of `batch` = B rows."""
        parts = [
            array.reshape(batch, -1, array.shape[-1]) for array in unpack(statistics.restore(z), self.parts).values()
        ]
        own = parts[1:] or [jnp.zeros((*parts[0].shape[:2], 0))] * len(self.system.modalities)
        return Latents(parts[0], jnp.stack(own, axis=2))


@dataclasses.dataclass(frozen=True)
class _BankScore(Sbm):
    """The score model of a bank of posteriors."""

    space: PosteriorBank | None = None

    @property
    def latent_space(self) -> PosteriorBank:
        return self.space

    @property
    def score_stage_name(self) -> str:
        return f"prior_{self.name}"

    def training_latents(
        self, key: Key, upstream: Mapping[str, Params], batch: Mapping[str, Array], observed: Array
    ) -> Array:
        del observed
        return self.space.draw(key, batch, self.space.statistics(upstream))


@dataclasses.dataclass(frozen=True)
class AuxiliaryPrior(JointPosterior):
    """A multimodal VAE with a trained prior, named after its method with the suffix ``_score`` or ``_mixture``.

    It shares the method's own stage with the system without a suffix.
    """

    @property
    def prior(self) -> str:
        """The type of the prior, ``"score"`` or ``"mixture"``."""
        return self.name.rpartition("_")[2]

    @property
    def bank(self) -> PosteriorBank:
        """The posteriors that the prior is trained on."""
        return PosteriorBank(self)

    @property
    def score(self) -> Sbm:
        """The score model, as a system over the parts of the decoder inputs."""
        # One time for all parts, because there is nothing to condition on.
        config = dataclasses.replace(self.config.score_prior, probability_none=1.0, probability_alone=0.0)
        return _BankScore(self.name, self.bank.parts, SbmConfig(None, config), self.seed, space=self.bank)

    @property
    def prior_stage(self) -> str:
        """The name of the stage that trains the prior."""
        return f"prior_{self.name}"

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the stages whose products `generate` uses."""
        return self.method, self.bank.bank_stage, self.prior_stage

    @property
    def _bound_subsets(self) -> np.ndarray:
        """Subsets of the posterior that the prior is trained on: all modalities, unless it is a mixture of experts."""
        return super()._bound_subsets if self.joining.is_mixture else np.ones((1, len(self.modalities)), bool)

    @property
    def has_costly_density(self) -> bool:
        """Whether the log density takes many network evaluations, or log weights are only estimates of bounds."""
        return self.prior == "score" or super().has_costly_density

    def check(self, options: SamplerOptions) -> None:
        """Raise `SbmError` for settings that cannot work; traces shapes without computing anything."""
        super().check(options)
        if self.prior == "score":
            self.score.check_score(self._options(options))

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the stages of the method, the bank and the prior."""
        prior = self.score.make_score_stage() if self.prior == "score" else self._make_mixture_stage()
        return [*super().stages(dataset), self.bank.make_stage(dataset), prior]

    def _make_mixture_stage(self) -> Stage:
        components = self.config.mixture_components

        def init(key: Key, upstream: Mapping[str, Params]) -> Params:
            rows, statistics = dict(self.bank.bank(upstream, "train")), self.bank.statistics(upstream)
            if "present" in rows:
                complete = np.asarray(rows.pop("present")).all(axis=1)
                if complete.sum() < components:
                    raise SbmError(
                        f"system {self.name!r} fits its mixture to complete rows, but there are only {complete.sum()} "
                        f"for {components} components; add some, or choose {self.method}_score."
                    )
                rows = {name: array[complete] for name, array in rows.items()}
            z = np.asarray(self.bank.draw(key, rows, statistics), np.float64)[:, self.bank.valid]
            fit = MixtureFit(components, random_state=self.seed, reg_covar=1e-4).fit(z)
            found = {"weights": fit.weights_, "means": fit.means_, "covariances": fit.covariances_}
            return {name: jnp.asarray(array, jnp.float32) for name, array in found.items()}

        settings = {"seed": self.seed, "components": components}
        return Stage(name=self.prior_stage, settings=settings, requires=(self.bank.bank_stage,), init=init)

    def _mixture(self, products: Mapping[str, Params]) -> GaussianMixture:
        fitted = products[self.prior_stage]
        return GaussianMixture(fitted["weights"], fitted["means"][:, None], fitted["covariances"])

    def _options(self, options: SamplerOptions) -> SamplerOptions:
        return dataclasses.replace(options, conditioning="clean", start="prior", start_time=1.0, resampling=1)

    def _sample_prior(
        self, products: Mapping[str, Params], key: Key, batch: int, num_samples: int, options: SamplerOptions
    ) -> tuple[Latents, Array]:
        """Sample latents from the prior; also return the network evaluations per sample."""
        valid, statistics = self.bank.valid, self.bank.statistics(products)
        if self.prior == "mixture":
            entries, _ = self._mixture(products).sample(key, batch * num_samples)
            z = jnp.zeros((batch * num_samples, *valid.shape)).at[:, valid].set(entries[:, 0])
            return self.bank.unpack(z, statistics, batch), jnp.zeros(())
        nothing = jnp.zeros((batch, len(valid)), bool)
        result = self.score.sample_latents(products, key, {}, nothing, self._options(options), num_samples)
        return self.bank.unpack(result.z, statistics, batch), result.network_evaluations

    def _log_prior(self, products: Mapping[str, Params], key: Key, latents: Latents) -> Array:
        """Return the log density [B, S] of latents under the prior used for generation, in nats."""
        valid, statistics = self.bank.valid, self.bank.statistics(products)
        z = self.bank.pack(latents, statistics)
        if self.prior == "mixture":
            density = self._mixture(products).log_density(z[:, valid][:, None])
        else:
            density = self.score.log_density(products, key, z)
        return (density - jnp.log(statistics.std)[valid].sum()).reshape(latents.joint.shape[:2])


def _make(name: str, shared: Shared, joint_posterior: JointPosteriorConfig, **own: Joining) -> AuxiliaryPrior:
    (joining,) = own.values()
    return AuxiliaryPrior(name, shared.modalities, joint_posterior, joining, shared.seed)


METHODS = tuple(
    Method(f"{cls.name}_{prior}", _make, {"joint_posterior": JointPosteriorConfig, cls.name: cls})
    for prior in ("score", "mixture")
    for cls in JOININGS
)
