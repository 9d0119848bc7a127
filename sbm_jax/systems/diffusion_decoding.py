"""Diffusion decoders over frozen latents: sharp samples from a system that is already trained.

Feed-forward decoders return the mean over everything that the latent leaves open, so their samples are blurry. A
separate stage trains a diffusion decoder on pairs of data and their reconstruction from a posterior sample; all earlier
stages stay frozen. Rows of the results table with such decoders have the suffix ``_diffusion``.

Reference: K. Pandey et al., "DiffuseVAE", 2022, formulation 1. https://arxiv.org/abs/2201.00308. It is the refiner of
  the SBM paper (A.10.2).
"""

import dataclasses
import functools
import math
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sbm_jax.config import plain
from sbm_jax.data.pipeline import in_units
from sbm_jax.errors import SbmError
from sbm_jax.losses.masked import masked_mean
from sbm_jax.networks.codecs import AutoencoderNetworkConfig, FeedForward, make_codec
from sbm_jax.networks.codecs.diffusion import WIDTHS
from sbm_jax.networks.diffusion_decoder import Condition, DiffusionDecoder, bounds_of, is_picture
from sbm_jax.sampling import SamplerOptions
from sbm_jax.system import Encodes, Generated, HasCodecs, Reconstructs, SparesObserved, System
from sbm_jax.systems.diffusion_decoding_config import CONDITIONS, DiffusionDecodingConfig
from sbm_jax.systems.method import Method, Shared
from sbm_jax.systems.observed import lost_rows, numbers_of, observed_rows, put_back
from sbm_jax.types import Array, Data, Dataset, Key, Metrics, Modality, Params, Stage

_DRAW = 10_003
"""Folded into the key; far from the numbers that the system and its codecs fold into theirs."""


@dataclasses.dataclass(frozen=True)
class Group:
    """Modalities that share one diffusion decoder.

    Attributes:
      modalities: modalities of the same shape and bounds, and of the same latent size if the condition uses latents.
      config: see `DiffusionDecodingConfig`.
    """

    modalities: tuple[Modality, ...]
    config: DiffusionDecodingConfig

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the modalities."""
        return tuple(modality.name for modality in self.modalities)

    @property
    def decoder(self) -> DiffusionDecoder:
        """The diffusion decoder.

        Raises:
          SbmError: if `map_network` is not a feed-forward codec.
        """
        first, condition, trunk = self.modalities[0], self.config.condition, None
        if "map" in condition:
            shape = (*first.shape[:2], self.config.map_channels)
            map_of = Modality(first.name, shape, first.latent_size, self.config.map_network)
            widths = WIDTHS.get(self.config.map_network.name, AutoencoderNetworkConfig().widths)
            codec = make_codec(map_of, AutoencoderNetworkConfig(widths))
            if not isinstance(codec, FeedForward):
                raise SbmError(
                    f"methods.diffusion_decoder.map_network {map_of.codec.name!r} has no feed-forward decoder. Choose "
                    "another codec, such as 'patch'."
                )
            trunk = codec.decoder
        return DiffusionDecoder(
            first.shape,
            bounds_of(first),
            self.config.decoder,
            has_picture="picture" in condition,
            latent_size=first.latent_size if {"map", "latent"} & {*condition} else 0,
            trunk=trunk,
            modulated="latent" in condition,
            num_kinds=len(self.modalities),
        )

    def condition(self, pictures: Array, latents: Array | None, which: Array) -> Condition:
        """Return the condition of images [B, H, W, C], latents [B, D] and modality indices, int [B]."""
        kinds = self.config.condition
        return Condition(
            pictures if "picture" in kinds else None,
            latents if {"map", "latent"} & {*kinds} else None,
            which if len(self.modalities) > 1 else None,
        )

    def init(self, key: Key) -> Params:
        """Return fresh parameters."""
        first = self.modalities[0]
        one = jnp.zeros((1, *first.shape)), jnp.zeros((1, first.latent_size)), jnp.zeros(1, jnp.int32)
        return self.decoder.init(key, self.condition(*one))

    def stacked(self, arrays: Mapping[str, Array] | None) -> Array | None:
        """Interleave arrays {name: [B, ...]} of the K modalities to [B K, ...], the K of one row next to each other."""
        if arrays is None:
            return None
        together = jnp.stack([arrays[name] for name in self.names], axis=1)
        return together.reshape(-1, *together.shape[2:])


def make_groups(modalities: tuple[Modality, ...], config: DiffusionDecodingConfig) -> tuple[Group, ...]:
    """Return the groups of modalities that share a decoder, in the order of the modalities.

    Raises:
      SbmError: if a named modality is not an image, or there is no modality to decode.
    """
    groups: dict[Any, list[Modality]] = {}
    for modality in _drawn(modalities, config):
        size = modality.latent_size if {"map", "latent"} & {*config.condition} else 0
        own = (modality.shape, bounds_of(modality), size) if config.shared else modality.name
        groups.setdefault(own, []).append(modality)
    return tuple(Group(tuple(members), config) for members in groups.values())


def _drawn(modalities: tuple[Modality, ...], config: DiffusionDecodingConfig) -> list[Modality]:
    """Return the modalities that have a diffusion decoder."""
    if not config.modalities:
        drawn = [modality for modality in modalities if is_picture(modality)]
        lacking = "no modality is an image (height, width, channels) with a Gaussian or Laplace likelihood; name"
    else:
        drawn = [modality for modality in modalities if modality.name in config.modalities]
        lacking = f"none of its modalities, {', '.join(config.modalities)}, is modelled (config.joint); name"
    if not drawn:
        raise SbmError(f"methods.diffusion_decoder: {lacking} others in its modalities.")
    for modality in drawn:
        if len(modality.shape) != 3:
            raise SbmError(
                f"methods.diffusion_decoder: modality {modality.name!r} has the shape {modality.shape}; diffusion "
                "decoders sample images (height, width, channels). Name others in its modalities."
            )
        if modality.vocabulary_size or (modality.likelihood == "poisson" and not bounds_of(modality)):
            raise SbmError(
                f"methods.diffusion_decoder: modality {modality.name!r} has ids or counts; diffusion decoders sample "
                "numbers with bounds or a variance of about 1. Name others in its modalities."
            )
    return drawn


@dataclasses.dataclass(frozen=True)
class DiffusionDecoded:
    """A trained system whose decoder means are refined by diffusion decoders.

    Attributes:
      name: row of the results table.
      base: the system.
      config: see `DiffusionDecodingConfig`.
      seed: the run's seed, part of the stages' fingerprints.
      num_free: see `SparesObserved`.
    """

    name: str
    base: System
    config: DiffusionDecodingConfig
    seed: int = 0
    num_free: int | None = None

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """The modalities of the system."""
        return self.base.modalities

    @property
    def groups(self) -> tuple[Group, ...]:
        """The modalities of each diffusion decoder."""
        return make_groups(self.modalities, self.config)

    @property
    def stage_names(self) -> tuple[str, ...]:
        """The names of the stages whose products `generate` uses."""
        return *self.base.stage_names, *(self._stage_name(group) for group in self.groups)

    def _stage_name(self, group: Group) -> str:
        more = len(group.names) - 1
        return f"diffusion_decoder_{self.base.decoder_name}_{group.names[0]}" + (f"_and_{more}_more" if more else "")

    def check(self, options: SamplerOptions) -> None:
        """Raise `SbmError` for settings that cannot work; traces shapes without computing anything."""
        if not isinstance(self.base, Reconstructs):
            raise SbmError(
                f"system {self.base.name!r} has no reconstructions that a diffusion decoder could learn from "
                "(system.Reconstructs). Choose another system."
            )
        self.base.check(options)
        if {"map", "latent"} & {*self.config.condition} and not self.base.tells_latents:
            raise SbmError(
                f"system {self.base.name!r} has no latents of each modality to condition a diffusion decoder on; set "
                "methods.diffusion_decoder.condition to ('picture',)."
            )
        for group in self.groups:
            jax.eval_shape(functools.partial(_try, group), jax.random.key(0))

    # MARK: Training

    def stages(self, dataset: Dataset) -> list[Stage]:
        """Return the stages of the system, then one stage for each diffusion decoder."""
        return [*self.base.stages(dataset), *(self._stage(group, dataset) for group in self.groups)]

    def _stage(self, group: Group, dataset: Dataset) -> Stage:
        names = [modality.name for modality in self.modalities]
        settings = {**plain(self.config), "decoder": self.config.decoder.training_settings()}
        settings["modalities"] = list(group.names)
        settings["condition"] = [kind for kind in CONDITIONS if kind in self.config.condition]
        del settings["shared"]  # `modalities` implies it
        if "map" not in self.config.condition:
            del settings["map_network"], settings["map_channels"]
        if self.base.decoder_settings:
            settings["condition_of"] = self.base.decoder_settings
        return Stage(
            name=self._stage_name(group),
            settings={"seed": self.seed, "data": dataset.settings, **settings},
            requires=self.base.decoder_stages,
            init=lambda key, upstream: group.init(key),
            loss=functools.partial(self._loss, group),
            rows=lambda upstream: dataset.train.rows(names),
            validation_rows=lambda upstream: dataset.validation.rows(names),
            validation_loss=functools.partial(self._loss, group, train=False),
            training=self.config.training,
        )

    def _loss(
        self,
        group: Group,
        params: Params,
        upstream: Mapping[str, Params],
        key: Key,
        batch: Mapping[str, Any],
        train: bool = True,
    ) -> tuple[Array, Metrics]:
        """Return the objective per entry, averaged over the images that rows have, given posterior samples."""
        posterior_key, loss_key = jax.random.split(key)
        data, size = in_units(batch["data"]), len(group.modalities)
        present = batch.get("present")
        pictures, latents = self.base.draw_reconstructions(upstream, posterior_key, data, present)
        which = jnp.tile(jnp.arange(size), len(next(iter(data.values()))))
        condition = group.condition(group.stacked(pictures), group.stacked(latents), which)
        x = group.stacked(data)
        losses = group.decoder.loss(params, loss_key, x, jax.lax.stop_gradient(condition), train)
        if present is not None:
            names = [modality.name for modality in self.modalities]
            present = present[:, jnp.array([names.index(name) for name in group.names])].reshape(-1)
        return masked_mean(losses, present) / math.prod(group.decoder.shape), {}

    # MARK: Use

    def with_free(self, number: int) -> "DiffusionDecoded":
        """Return the system for rows with at most `number` unobserved modalities; see `system.SparesObserved`."""
        base = self.base.with_free(number) if isinstance(self.base, SparesObserved) else self.base
        return dataclasses.replace(self, base=base, num_free=number)

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
        """Generate the unobserved modalities; see `system.System.generate`. `options` are those of the base system.

        Raises:
          SbmError: if the base system does.
        """
        # Refine the base system's own samples, which allows paired comparisons.
        found = self.base.generate(products, key, data, observed, options, num_samples, strength=strength)
        draw_key = jax.random.fold_in(key, _DRAW)
        observed = observed_rows(data, observed, self.modalities)
        rows = jnp.repeat(observed, num_samples, axis=0)
        means = _flat(found.data)
        latents = None if found.latents is None else _flat(found.latents)
        drawn, lost, evaluations = dict(means), jnp.zeros(len(rows), bool), []
        for number, group in enumerate(self.groups):
            columns = jnp.array([[m.name for m in self.modalities].index(name) for name in group.names])
            there = rows[:, columns]

            def draw(group: Group = group, number: int = number, there: Array = there) -> dict[str, Array]:
                return self._draw(products, jax.random.fold_in(draw_key, number), group, means, latents, there)

            own = jax.lax.cond(there.all(), lambda group=group: {name: means[name] for name in group.names}, draw)
            evaluations.append(jnp.where(there.all(), 0.0, group.decoder.evaluations))
            drawn |= own
            # The base system has already counted rows whose means are not finite.
            given = {name: means[name] for name in group.names}
            lost |= lost_rows(own, rows, self.modalities) & ~lost_rows(given, rows, self.modalities)
        all_evaluations = found.info.get("decoder_evaluations", 0.0) + jnp.max(jnp.stack(evaluations))
        info = {**found.info, "diverged": found.info["diverged"] + lost.sum(), "decoder_evaluations": all_evaluations}
        return found._replace(data=put_back(drawn, data, observed, self.modalities), info=info)

    def _draw(
        self,
        products: Mapping[str, Params],
        key: Key,
        group: Group,
        means: Mapping[str, Array],
        latents: Mapping[str, Array] | None,
        observed: Array,
        row_numbers: Array | None = None,
    ) -> dict[str, Array]:
        """Sample images {name: [B, H, W, C]} given means and latents; NaN where sampling diverged.

        `row_numbers`, int [B], select the noise of each row; None for 0 to B - 1. If `num_free` is set, sample at most
        that many images per row, because observed ones (`observed`, bool [B, K]) need no sampling.
        """
        batch, size = observed.shape
        free = size if self.num_free is None else min(size, self.num_free)
        if not free:
            return {name: means[name] for name in group.names}
        chosen = jnp.argsort(observed, axis=1, stable=True)[:, :free]  # unobserved modalities first
        rows = jnp.arange(batch)[:, None]

        def pick(arrays: Mapping[str, Array] | None) -> Array | None:
            together = group.stacked(arrays)
            if together is None:
                return None
            return together.reshape(batch, size, *together.shape[1:])[rows, chosen].reshape(-1, *together.shape[1:])

        few = None if latents is None else {name: latents[name] for name in group.names}
        condition = group.condition(pick(means), pick(few), chosen.reshape(-1))
        own = rows if row_numbers is None else row_numbers[:, None]
        numbers = (own * size + chosen).reshape(-1)  # the same noise, however many are sampled
        result = group.decoder.sample(products[self._stage_name(group)], key, condition, row_numbers=numbers)
        all_means = group.stacked(means).reshape(batch, size, *group.decoder.shape)
        together = all_means.at[rows, chosen].set(result.z.reshape(batch, free, *group.decoder.shape))
        bounds = bounds_of(group.modalities[0])
        together = jnp.clip(together, *bounds) if bounds else together
        return {name: together[:, number] for number, name in enumerate(group.names)}

    def reconstruct(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Sample given the base system's reconstruction of float data; deterministic for each row."""
        means = dict(self.base.reconstruct(products, data))
        latents = self.base.encode(products, data) if self.base.tells_latents else None
        for number, group in enumerate(self.groups):
            nothing = jnp.zeros((len(means[group.names[0]]), len(group.names)), bool)
            whole = dataclasses.replace(self, num_free=None)
            key = jax.random.fold_in(jax.random.key(0), number)
            means |= whole._draw(products, key, group, means, latents, nothing, numbers_of(data))
        return means


class Encoding(DiffusionDecoded):
    """Diffusion decoders over a system with latents of each modality."""

    def encode(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return the base system's latents; see `system.Encodes`."""
        return self.base.encode(products, data)


class WithCodecs(Encoding):
    """Diffusion decoders over a system whose modalities have codecs and latents of their own."""

    def posteriors(self, products: Mapping[str, Params], data: Data) -> dict[str, tuple[Array, Array | None]]:
        """Return the codecs' means and log variances; see `system.HasCodecs`."""
        return self.base.posteriors(products, data)

    def codec_reconstructions(self, products: Mapping[str, Params], data: Data) -> dict[str, Array]:
        """Return the codecs' reconstructions, without diffusion decoders; see `system.HasCodecs`."""
        return self.base.codec_reconstructions(products, data)

    def save_codec(self, products: Mapping[str, Params], name: str, path: str | os.PathLike[str]) -> None:
        """Write the trained codec of a modality, without its diffusion decoder, to a file; see `system.HasCodecs`."""
        self.base.save_codec(products, name, path)


def _flat(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return arrays {name: [B, S, ...]} as {name: [B S, ...]}."""
    return {name: array.reshape(-1, *array.shape[2:]) for name, array in arrays.items()}


def _try(group: Group, key: Key) -> Array:
    """Compute the loss and sample once; raises what the decoder raises."""
    first, params = group.modalities[0], group.init(key)
    two = jnp.zeros((2, *first.shape))
    condition = group.condition(two, jnp.zeros((2, first.latent_size)), jnp.zeros(2, jnp.int32))
    drawn = group.decoder.sample(params, key, condition).z
    return group.decoder.loss(params, key, two, condition) + drawn.sum(axis=(1, 2, 3))


# MARK: Methods


def over(method: Method) -> Method:
    """Return the method that adds diffusion decoders to another one; its name has the suffix ``_diffusion``."""

    def make(name: str, shared: Shared, diffusion_decoder: DiffusionDecodingConfig, **own: Any) -> DiffusionDecoded:
        base = method.make(method.name, shared, **own)
        kinds = {HasCodecs: WithCodecs, Encodes: Encoding}
        kind = next((own for ability, own in kinds.items() if isinstance(base, ability)), DiffusionDecoded)
        return kind(name, base, diffusion_decoder, shared.seed)

    options = {"diffusion_decoder": DiffusionDecodingConfig, **method.options}
    return Method(f"{method.name}_diffusion", make, options)
