"""Tiny systems of every kind over three modalities, and what is generated from them without training."""

import dataclasses
import functools

import jax
import numpy as np

from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.networks.score import ScoreNetworkConfig
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.sbm import Sbm
from sbm_jax.systems.sbm_contrastive import ContrastiveConfig, SbmContrastive
from sbm_jax.systems.sbm_energy import EnergyConfig, SbmEnergy
from sbm_jax.systems.sbm_finetuned import FinetuningConfig, SbmFinetuned
from sbm_jax.systems.sbm_marginal import SbmMarginal
from sbm_jax.systems.score_stage import SbmConfig, ScoreConfig
from sbm_jax.systems.unimodal import AutoencoderConfig
from sbm_jax.types import Dataset, Modality, Split, TrainingConfig

MODALITIES = (
    Modality("image", (8, 8, 1), 4, "patch"),
    Modality("words", (6,), 3, "mlp", "categorical"),
    Modality("mask", (8, 8, 1), 4, "patch", "bernoulli"),
)
MODALITY_NAMES = [modality.name for modality in MODALITIES]
CONFIG = SbmConfig(
    AutoencoderConfig(TrainingConfig(2, 4), AutoencoderNetworkConfig((8,))),
    ScoreConfig(TrainingConfig(2, 4), ScoreNetworkConfig("transformer", 32, 1)),
)
ALONE = dataclasses.replace(CONFIG, score=dataclasses.replace(CONFIG.score, probability_alone=0.5))
OPTIONS = SamplerOptions(num_steps=3)


def split_of(num_rows, seed):
    rng = np.random.default_rng(seed)
    data = {
        "image": rng.integers(0, 256, (num_rows, 8, 8, 1), dtype=np.uint8),
        "words": np.eye(6, dtype=np.float32)[rng.integers(0, 6, num_rows)],
        "mask": rng.integers(0, 2, (num_rows, 8, 8, 1)).astype(np.float32),
    }
    return Split(data)


DATASET = Dataset(split_of(10, 0), split_of(4, 1), split_of(5, 2), {}, {})


ENERGY = EnergyConfig(TrainingConfig(2, 4), width=16, depth=2)
CONTRASTIVE = ContrastiveConfig(TrainingConfig(2, 4), AutoencoderNetworkConfig((8,)), embedding_size=6)
FINETUNING = FinetuningConfig(TrainingConfig(2, 4))
SYSTEMS = {
    "sbm_vae": Sbm("sbm_vae", MODALITIES, CONFIG),
    "sbm_rae": Sbm("sbm_rae", MODALITIES, CONFIG, regularised=True),
    "sbm_vae_c": SbmEnergy("sbm_vae_c", MODALITIES, CONFIG, energy=ENERGY),
    "sbm_rae_t": SbmContrastive("sbm_rae_t", MODALITIES, CONFIG, regularised=True, contrastive=CONTRASTIVE),
    "sbm_vae_m": SbmMarginal("sbm_vae_m", MODALITIES, ALONE),
    "sbm_vae_f": SbmFinetuned(
        "sbm_vae_f", MODALITIES, CONFIG, finetuning=FinetuningConfig(TrainingConfig(2, 4)), sampler=OPTIONS
    ),
}


@functools.cache
def fresh(system):
    """The products of all stages without training."""
    made = {}
    for stage in system.stages(DATASET):
        make = jax.jit(stage.init) if stage.training else stage.init
        made[stage.name] = make(jax.random.key(0), made)
    return made


def as_floats(split):
    return {name: values / (255.0 if values.dtype == np.uint8 else 1.0) for name, values in split.data.items()}


def generated(system, products, strength=None, options=OPTIONS, observed=(True, False, False), key=3, **changes):
    data = {**as_floats(DATASET.test), **changes}
    mask = np.broadcast_to(observed, (len(data["image"]), 3))
    run = jax.jit(
        lambda strength: system.generate(products, jax.random.key(key), data, mask, options, strength=strength)
    )
    return run(strength)


def aligned_config(**changes):
    return dataclasses.replace(CONFIG.autoencoder, **{"alignment": 5.0, "aligned_size": 2, **changes})
