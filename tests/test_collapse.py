"""A run whose codec is made to collapse says so, and the same run with a sound one does not."""

import numpy as np
import pytest

from sbm_jax import experiment, experiment_config


def _config(directory, beta):
    def training(num_steps):
        optimizer = {"learning_rate": 5e-3}
        return {"num_steps": num_steps, "batch_size": 64, "steps_per_dispatch": 50, "optimizer": optimizer}

    codec = {"name": "mlp", "network": {"widths": (32,), "dtype": "float32"}}
    return experiment_config.parse_config(
        {
            "name": "collapse",
            "systems": ("sbm_vae",),
            "modalities": (
                {"name": "sound", "shape": (12,), "latent_size": 6, "codec": {**codec, "beta": beta}},
                {"name": "tags", "shape": (5,), "latent_size": 4, "codec": codec, "likelihood": "categorical"},
            ),
            "data": {"name": "arrays", "arrays": {"directory": str(directory)}},
            "autoencoder": {"training": training(600), "beta": 0.5},
            "score": {"training": training(50), "network": {"width": 32, "depth": 1}},
            "classifier": {"training": training(200), "hidden": 16},
            "sampler": {"num_steps": 2},
            "evaluation": {"num_examples": 100, "num_unconditional": 20, "batch_size": 100, "num_repeats": 1},
        }
    )


def _write_data(directory):
    """Sounds are one of five patterns, at a random loudness, with a little noise."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(5, 12))
    for split, size in (("train", 1000), ("test", 100)):
        label = rng.integers(0, 5, size)
        sound = patterns[label] * rng.uniform(0.7, 1.3, (size, 1)) + 0.1 * rng.normal(size=(size, 12))
        np.savez(directory / f"{split}.npz", sound=sound, tags=np.eye(5, dtype=np.float32)[label], label=label)


@pytest.mark.parametrize(("beta", "collapsed"), [(200.0, True), (0.5, False)])
@pytest.mark.slow
def test_a_hopeless_beta_is_warned_of(tmp_path, capsys, beta, collapsed):
    _write_data(tmp_path)
    results = experiment.run(_config(tmp_path, beta), tmp_path / "work")
    (system,) = results["systems"].values()
    texts, metrics = system["warnings"], system["metrics"]
    assert [text.startswith("The codec of 'sound' loses the data") for text in texts] == [True] * collapsed
    assert ("Warning (sbm_vae): The codec of 'sound'" in capsys.readouterr().out) == collapsed
    assert metrics["codecs/entries_in_use/sound"]["n"] == 6
    assert (metrics["codecs/error_over_variance/sound"]["value"] > 0.5) == collapsed
    assert metrics["codecs/train_error_over_variance/sound"]["n"] == 100
    # Of two modalities, from one is the same as given the rest.
    assert metrics["coherence/from/tags/to/sound"] == metrics["coherence/given_rest/sound"]
