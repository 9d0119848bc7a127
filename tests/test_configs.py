"""Every config is valid, and has the numbers that it says."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest

import sbm_jax
from benchmarks.flops import flops_per_step
from sbm_jax.experiment_config import apply_changes, make_system, parse_config
from sbm_jax.formats import completed, is_complete

ROOT = Path(__file__).parents[1]
CONFIGS = [
    "quickstart.py",
    "quickstart.py:smoke",
    "quickstart.py:all,smoke",
    "quickstart.py:square",
    "polymnist.py",
    "polymnist.py:five",
    "polymnist.py:five,smoke",
    "polymnist.py:paper",
    "polymnist.py:five,paper,cpu",
    "polymnist.py:five,best,cpu",
    "polymnist.py:best,studies",
    "polymnist.py:paper,studies",
    "polymnist.py:three",
    "polymnist.py:table,studies",
    "polymnist.py:paper,table,studies",
    "polymnist.py:five,table,smoke",
    "polymnist.py:five,best,table,cpu",
    "polymnist.py:paper,smoke",
    "polymnist.py:five,best,smoke",
    "polymnist.py:best,smoke,studies",
    "polymnist.py:five,cpu,diffusion",
    "cub.py",
    "cub.py:cpu",
    "cub.py:smoke",
    "cub.py:optimus",
    "grid.py",
    "grid.py:table",
    "grid.py:smoke",
    "video_audio.py",
    "video_audio.py:smoke",
    "polymnist.py:five,cpu,diff_mvae",
    "polymnist.py:five,diff_mvae",
    "polymnist.py:eb_mvae",
    "polymnist.py:cpu,eb_mvae",
    "digits.py",
    "digits.py:tags",
    "digits.py:strokes",
    "digits.py:smoke,table,tags",
    "mhd.py",
    "mhd.py:paper",
    "mhd.py:smoke,trajectory",
    "celebamask_hq.py",
    "celebamask_hq.py:paper,table",
    "celebamask_hq.py:table,cpu,missing",
    "celebamask_hq.py:diffusion",
    "celebamask_hq.py:best,cpu",
    "celebamask_hq.py:smoke",
]


def load_config(name):
    file, _, variants = name.partition(":")
    spec = importlib.util.spec_from_file_location("config", ROOT / "configs" / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variants) if variants else module.get_config()


def parse_complete(name):
    """Return the checked form of a config, with some words where a vocabulary is left to the data."""
    parsed, texts = parse_config(load_config(name)), np.array(["a bird", "a bird"])
    left = [m for m in parsed.modalities if not (is_complete(m) or m.vocabulary_size)]
    modalities = tuple(completed(m, texts) if m in left else m for m in parsed.modalities)
    return dataclasses.replace(parsed, modalities=modalities)


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_are_valid(name):
    parsed = parse_complete(name)
    if parsed.data.name == "polymnist":
        assert parsed.data.polymnist.num_modalities == len(parsed.modalities)
    for one in (parsed, *(apply_changes(parsed, variation.changes) for variation in parsed.variations)):
        for system in one.systems:
            make_system(one, system)


def test_every_variation_of_diff_mvae_has_the_modality_that_is_judged():
    config = parse_config(load_config("polymnist.py:five,diff_mvae"))
    (judged,) = config.evaluation.metrics["frechet"]["modalities"]
    varied = [apply_changes(config, variation.changes) for variation in config.variations]
    assert {len(one.joint_modalities) for one in varied} == {2, 3, 4, 5}
    assert all(judged in [modality.name for modality in one.joint_modalities] for one in varied)


@pytest.mark.parametrize("others", ["paper", "two", "best,cpu", "table"])
def test_diff_mvae_is_an_experiment_of_its_own(others):
    with pytest.raises(ValueError, match="'diff_mvae' is an experiment of its own"):
        load_config(f"polymnist.py:diff_mvae,{others}")


@pytest.mark.parametrize("variants", ["", ":diffusion,cpu", ":table,smoke"])
def test_of_faces_only_images_are_drawn_by_diffusion_decoders(variants):
    config = parse_config(load_config(f"celebamask_hq.py{variants}"))
    for name in ("diff_mvae", "diff_mvae_star"):
        codecs = {m.name: m.codec.name for m in make_system(config, name).decoded_modalities}
        assert [modality for modality, codec in codecs.items() if codec == "diffusion"] == ["image"]
    stages = make_system(config, "sbm_vae_m_diffusion").stage_names
    assert [name for name in stages if name.startswith("diffusion_decoder")] == ["diffusion_decoder_vae_image"]


def test_paper_variant_has_the_papers_numbers():
    ten, five = (parse_config(load_config(f"polymnist.py:{v}")) for v in ("paper", "five,paper"))
    assert (ten.score.sde.beta_min, ten.score.sde.beta_max) == (0.1, 5.0)
    assert (five.score.sde.beta_min, five.score.sde.beta_max) == (1.0, 5.0)
    assert (ten.score.network.width, five.score.network.width) == (128, 64)
    assert ten.score.probability_none == 1.0
    assert (ten.sampler.solver, ten.sampler.num_steps, ten.sampler.snr) == ("predictor_corrector", 100, 0.16)
    assert all(modality.latent_size == 64 for modality in ten.modalities)


@pytest.mark.parametrize("variants", ["five,best,cpu", "best"])
def test_the_papers_score_model_gets_the_same_compute(variants):
    ours = parse_config(load_config(f"polymnist.py:{variants}"))
    (variation,) = [variation for variation in ours.variations if variation.study == "score model"]
    theirs = apply_changes(ours, variation.changes)
    compute = [flops_per_step(config) * config.score.training.num_steps for config in (ours, theirs)]
    assert compute[1] == pytest.approx(compute[0], rel=0.01)
    assert theirs.score.network.name == "unet"
    assert theirs.sampler.num_steps * 2 == 200  # evaluations


def test_variants_that_exclude_each_other_are_refused():
    with pytest.raises(ValueError, match="'best' and 'paper' exclude each other"):
        load_config("polymnist.py:best,paper")
    with pytest.raises(ValueError, match="same compute"):
        load_config("polymnist.py:three,best")


def test_defaults_are_open_where_other_packages_have_fields():
    config = sbm_jax.default_config()
    config.methods.nearest = {"neighbours": 3}
    config.evaluation.metrics.mine = {"name": "package.module:CLASS"}
    config.data.options.split_by = "author"
    for group in (config, config.data, config.methods.sbm_c, config.evaluation.metrics.frechet):
        with pytest.raises(AttributeError, match="unknown_field"):
            group.unknown_field = 1
