"""A run on files of every kind, which takes seconds: its systems learn nothing."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import wavfile

from sbm_jax import experiment, experiment_config

COLORS = ("red", "green", "blue")
SOUND = {"rate": 1000, "length": 64, "num_mels": 4, "window": 32, "hop": 16}
NAMES = ("photo", "mask", "caption", "sound", "color", "level", "film")


def write_data(directory: Path) -> None:
    """Write 24 rows for training and 6 for test, in folders."""
    for seed, (split, number) in enumerate((("train", 24), ("test", 6))):
        rng = np.random.default_rng(seed)
        for name in NAMES:
            (directory / split / name).mkdir(parents=True)
        for row in range(number):
            paths = {name: directory / split / name / f"row{row:02d}" for name in NAMES}
            color = rng.integers(0, 3)
            photo = np.zeros((8, 8, 3), np.uint8)
            photo[..., color] = rng.integers(40, 256, (8, 8))
            Image.fromarray(photo).save(paths["photo"].with_suffix(".png"))
            mask = (rng.random((8, 8)) < 0.5).astype(np.uint8) * 255
            Image.fromarray(mask).save(paths["mask"].with_suffix(".png"))
            paths["caption"].with_suffix(".txt").write_text(f"a {COLORS[color]} bird")
            wave = np.sin(np.arange(64) * (color + 1) / 3) * rng.uniform(0.1, 0.9)
            wavfile.write(paths["sound"].with_suffix(".wav"), SOUND["rate"], (wave * 2**14).astype(np.int16))
            paths["color"].with_suffix(".txt").write_text(COLORS[color])
            np.save(paths["level"].with_suffix(".npy"), rng.normal(5.0, 2.0, 3).astype(np.float32))
            np.save(paths["film"].with_suffix(".npy"), rng.integers(0, 256, (4, 8, 8, 1), dtype=np.uint8))


def config(directory: Path) -> experiment_config.ExperimentConfig:
    """Return the experiment on these data."""
    training = {"num_steps": 2, "batch_size": 8}
    unit, words = {"bounds": (0.0, 1.0)}, {"likelihood": "categorical"}
    tokens = {"name": "tokens", "network": {"width": 8, "depth": 1, "heads": 1}}
    numbers = {"name": "standardized", "options": {"mean": (5.0,), "std": (2.0,)}}
    masks = {"name": "binary", "options": {"yes": 255, "dtype": "uint8"}}
    modalities = (
        {"name": "photo", "shape": (8, 8, 3), **unit},
        {"name": "mask", "shape": (8, 8, 1), "likelihood": "bernoulli", **unit, "format": masks},
        {"name": "caption", "shape": (5,), **words, "codec": tokens, "format": "text"},
        {"name": "sound", "shape": (4, 4, 1), **unit, "format": {"name": "spectrogram", "options": SOUND}},
        {"name": "color", "shape": (3,), **words, "format": {"name": "category", "options": {"classes": COLORS}}},
        {"name": "level", "shape": (3,), "format": numbers},
        {"name": "film", "shape": (4, 8, 8, 1), **unit, "format": {"name": "video", "options": {"rate": 8.0}}},
    )
    return experiment_config.parse_config(
        {
            "name": "all kinds",
            "systems": ("sbm_vae_m", "sbm_vae"),
            "data": {"name": "folders", "folders": {"directory": str(directory), "rate": SOUND["rate"]}},
            "modalities": tuple({"latent_size": 4, "codec": "mlp", **modality} for modality in modalities),
            "autoencoder": {"training": training, "network": {"widths": (8,)}},
            "score": {
                "training": training,
                "network": {"name": "transformer", "width": 32, "depth": 1},
                "probability_alone": 0.2,
            },
            "sampler": {"num_steps": 3},
            "evaluation": {"num_examples": 4, "num_unconditional": 4, "batch_size": 4, "metrics": {"sampling": {}}},
        }
    )


def make_run(path: Path) -> Path:
    """Write data below a path, train on them without an evaluation, and return the work directory."""
    write_data(path / "data")
    made = config(path / "data")
    stages = {stage for name in made.systems for stage in experiment_config.make_system(made, name).stage_names}
    experiment.run(made, path / "work", stages)
    return path / "work"
