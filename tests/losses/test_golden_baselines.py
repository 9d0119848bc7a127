"""The objectives of the baselines against recorded ones: inputs, noise, losses and gradients, in float64."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.losses import multimodal
from sbm_jax.types import Modality

ESTIMATORS = {"iwae_looser": "iwae", "dreg_looser": "dreg"}
LIKELIHOODS = {"normal": "gaussian"}


def pytest_generate_tests(metafunc):
    folder = metafunc.config.getoption("--golden")
    files = sorted(Path(folder).glob("*.npz")) if folder else []
    if folder and not files:
        raise pytest.UsageError(f"--golden={folder} holds no .npz files")
    metafunc.parametrize("path", files or [None], ids=lambda path: path.stem if path else "no files")


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.golden
def test_loss_and_gradients_are_the_recorded_ones(path):
    if path is None:
        pytest.skip("no recorded cases: name their directory by --golden")
    with np.load(path, allow_pickle=False) as file:
        case = dict(file)
    meta = json.loads(str(case.pop("meta")))
    names = sorted((key[2:] for key in case if key.startswith("x_")), key=lambda name: int(name[1:]))
    parts = [part for part in ("mu", "lv", "smu", "slv") if f"enc_{names[0]}_{part}" in case]
    encoded = {part: jnp.stack([case[f"enc_{name}_{part}"] for name in names], axis=1) for part in parts}
    loss, gradients = jax.value_and_grad(lambda encoded: _loss(meta, case, names, encoded))(encoded)
    np.testing.assert_allclose(loss, case["loss"], rtol=1e-9)
    for part, gradient in gradients.items():
        recorded = np.stack([case[f"grad_{name}_{part}"] for name in names], axis=1)
        error = np.abs(gradient - recorded).max() / np.abs(recorded).max()
        assert error < 1e-7, part


def _loss(meta, case, names, encoded):
    likelihood = LIKELIHOODS.get(meta["likelihood"], meta["likelihood"])
    size = encoded["mu"].shape[-1]
    modalities = tuple(
        Modality(name, case[f"x_{name}"].shape[1:], size, "mlp", likelihood, float(meta["scale"])) for name in names
    )

    def decode(latents):
        return {
            name: (z @ case[f"dec_W_{name}"] + case[f"dec_b_{name}"][None]).reshape(-1, *case[f"x_{name}"].shape[1:])
            for name, z in latents.items()
        }

    rescaling = multimodal.likelihood_rescaling(modalities) if meta["rescaling"] else (1.0,) * len(names)
    data = {name: jnp.asarray(case[f"x_{name}"]) for name in names}
    decoding = multimodal.Decoding(modalities, decode, data, rescaling)
    noise = [jnp.asarray(case[f"noise_{i}"]) for i in range(sum(key.startswith("noise_") for key in case))]
    present = jnp.stack([case[f"mask_{name}"] for name in names], axis=1).astype(bool) if meta.get("masked") else None
    terms = _terms(meta, case, names, encoded, decoding, noise, present)
    return terms.sum() if meta["loss_reduction"] == "sum over the batch" else terms.mean()


def _terms(meta, case, names, encoded, decoding, noise, present):
    experts = encoded["mu"], encoded["lv"]
    if meta["objective"] == "mvae":
        subsets = np.array([[name in subset for name in names] for subset in meta["subsets"]])
        return multimodal.mvae_terms(*experts, decoding, jnp.stack(noise), subsets, _annealed(meta), present).loss
    if meta["objective"] == "mopoe":
        rows, private = jnp.asarray(case["row_subset"]), None
        if "smu" in encoded:
            own = encoded["smu"], encoded["slv"], jnp.stack(noise[1:]), meta["beta_private"]
            private = multimodal.PrivateLatents(*own)
        terms = multimodal.mopoe_terms(*experts, decoding, noise[0], rows, meta["beta"], present, private=private)
        return terms.loss
    if meta["objective"] == "mvtcae":
        return multimodal.mvtcae_terms(*experts, decoding, noise[0], meta["alpha"], meta["beta"], present).loss
    family = multimodal.Family(meta["posterior"], ESTIMATORS[meta["estimator"]])
    size, zeros = experts[0].shape[-1], jnp.zeros
    if meta["objective"] == "mmvae":
        return multimodal.mmvae_terms(*experts, decoding, jnp.stack(noise), zeros(size), family, present)
    own = encoded["smu"], encoded["slv"]
    priors = zeros((len(names), own[0].shape[-1]))
    return multimodal.mmvae_plus_terms(*experts, *own, decoding, noise, priors, meta["beta"], family, present)


def _annealed(meta):
    """Return MVAE's weight of the divergence, which rises during the epochs of warm-up; epochs count from 1."""
    if not meta.get("warmup") or meta["epoch"] >= meta["warmup"]:
        return meta["beta"]
    return meta["beta"] * (meta["epoch"] - 1 + meta["batch_ratio"]) / meta["warmup"]
