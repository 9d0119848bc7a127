"""The objectives of the baselines against recorded ones: inputs, noise, losses and gradients, in float64."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax import distributions
from sbm_jax.losses.bounds import Decoding, likelihood_rescaling
from sbm_jax.losses.mixtures_of_experts import Family, mmvae_plus_terms, mmvae_terms
from sbm_jax.losses.mixtures_of_products import PrivateLatents, mopoe_terms
from sbm_jax.losses.products_of_experts import mvae_terms, mvtcae_terms
from sbm_jax.types import Modality

ESTIMATORS = {"iwae_looser": "iwae", "dreg_looser": "dreg"}
LIKELIHOODS = {"normal": "gaussian"}


def pytest_generate_tests(metafunc):
    if "path" not in metafunc.fixturenames:
        return
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

    def log_prob(latents, part):
        return {modality.name: _log_prob(case, modality, latents[modality.name]) for modality in modalities}

    rescaling = likelihood_rescaling(modalities) if meta["rescaling"] else (1.0,) * len(names)
    decoding = Decoding(modalities, log_prob, rescaling)
    noise = [jnp.asarray(case[f"noise_{i}"]) for i in range(sum(key.startswith("noise_") for key in case))]
    present = jnp.stack([case[f"mask_{name}"] for name in names], axis=1).astype(bool) if meta.get("masked") else None
    terms = _terms(meta, case, names, encoded, decoding, noise, present)
    return terms.sum() if meta["loss_reduction"] == "sum over the batch" else terms.mean()


def _log_prob(case, modality, z):
    name = modality.name
    output = z.reshape(-1, z.shape[-1]) @ case[f"dec_W_{name}"] + case[f"dec_b_{name}"][None]
    output = output.reshape(*z.shape[:-1], *modality.shape)
    x = jnp.broadcast_to(case[f"x_{name}"], output.shape)
    density = distributions.LIKELIHOODS[modality.likelihood].log_prob(x, output, modality.scale)
    return density.reshape(*z.shape[:-1], -1).sum(axis=-1)


def _terms(meta, case, names, encoded, decoding, noise, present):
    experts = encoded["mu"], encoded["lv"]
    if meta["objective"] == "mvae":
        subsets = np.array([[name in subset for name in names] for subset in meta["subsets"]])
        return mvae_terms(*experts, decoding, jnp.stack(noise), subsets, _annealed(meta), present).loss
    if meta["objective"] == "mopoe":
        rows, private = jnp.asarray(case["row_subset"]), None
        if "smu" in encoded:
            own = encoded["smu"], encoded["slv"], jnp.stack(noise[1:]), meta["beta_private"]
            private = PrivateLatents(*own)
        terms = mopoe_terms(*experts, decoding, noise[0], rows, meta["beta"], present, private=private)
        return terms.loss
    if meta["objective"] == "mvtcae":
        return mvtcae_terms(*experts, decoding, noise[0], meta["alpha"], meta["beta"], present).loss
    family = Family(meta["posterior"], ESTIMATORS[meta["estimator"]])
    size, zeros = experts[0].shape[-1], jnp.zeros
    if meta["objective"] == "mmvae":
        return mmvae_terms(*experts, decoding, jnp.stack(noise), zeros(size), family, present)
    own = encoded["smu"], encoded["slv"]
    priors = zeros((len(names), own[0].shape[-1]))
    return mmvae_plus_terms(*experts, *own, decoding, noise, priors, meta["beta"], family, present)


def _annealed(meta):
    """Return MVAE's weight of the divergence, which rises during the epochs of warm-up; epochs count from 1."""
    if not meta.get("warmup") or meta["epoch"] >= meta["warmup"]:
        return meta["beta"]
    return meta["beta"] * (meta["epoch"] - 1 + meta["batch_ratio"]) / meta["warmup"]


PEER_CASES = {
    "mvae": {"objective": "mvae", "beta": 2.0},
    "mvae while warming up": {"objective": "mvae", "beta": 2.0, "warmup": 4, "epoch": 2, "batch_ratio": 0.5},
    "mvtcae, five modalities": {"objective": "mvtcae", "beta": 2.5, "alpha": 0.3, "num_modalities": 5},
    "mvtcae, rescaled": {"objective": "mvtcae", "beta": 2.5, "alpha": 0.3, "rescaling": True},
    "mopoe, five modalities": {"objective": "mopoe", "beta": 2.5, "num_modalities": 5},
    "mopoe, private latents": {"objective": "mopoe", "beta": 2.5, "beta_private": 0.7},
    "mmvae, normal": {"objective": "mmvae", "posterior": "normal", "estimator": "iwae_looser", "K": 3},
    "mmvae, five modalities": {
        "objective": "mmvae",
        "posterior": "laplace_with_softmax",
        "estimator": "dreg_looser",
        "K": 3,
        "num_modalities": 5,
    },
    "mmvae_plus": {
        "objective": "mmvae_plus",
        "posterior": "normal_with_softplus",
        "estimator": "dreg_looser",
        "K": 2,
        "beta": 2.5,
        "num_modalities": 4,
    },
}


@pytest.mark.peer
@pytest.mark.parametrize("name", PEER_CASES)
def test_loss_and_gradients_are_those_of_multivae(name, monkeypatch):
    """Cases made anew where the package is installed (MultiVae 1.0.3, PyTorch)."""
    pytest.importorskip("multivae")
    meta = {
        "likelihood": "normal",
        "scale": 0.8,
        "rescaling": False,
        "num_modalities": 3,
        "loss_reduction": "",
        "beta": 1,
    }
    meta |= PEER_CASES[name]
    meta |= {"loss_reduction": "sum over the batch"} if "estimator" in meta else {}
    torch = pytest.importorskip("torch")
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        case, encoded, expected, recorded = _record(meta, monkeypatch)
    finally:
        torch.set_default_dtype(before)
    names = [f"m{i}" for i in range(meta["num_modalities"])]
    encoded = {part: jnp.asarray(array) for part, array in encoded.items()}
    loss, gradients = jax.value_and_grad(lambda encoded: _loss(meta, case, names, encoded))(encoded)
    np.testing.assert_allclose(loss, expected, rtol=1e-9)
    for part, gradient in gradients.items():
        assert np.abs(gradient - recorded[part]).max() / np.abs(recorded[part]).max() < 1e-7, part


def _record(meta, monkeypatch, batch=62, size=4, own_size=3):
    """Return a case of the recorded form, the encoders' outputs [B, M, ·], MultiVae's loss and its gradients."""
    import torch
    from multivae import models
    from multivae.data.datasets.base import MultimodalBaseDataset
    from multivae.models.base import BaseDecoder, BaseEncoder, ModelOutput

    rng, names = np.random.default_rng(0), [f"m{i}" for i in range(meta["num_modalities"])]
    shapes = {name: (2, 3 + i) for i, name in enumerate(names)}
    private = meta["objective"] == "mmvae_plus" or "beta_private" in meta
    sizes = {"mu": size, "lv": size} | ({"smu": own_size, "slv": own_size} if private else {})
    encoded = {part: rng.normal(size=(batch, len(names), n)) * 0.5 for part, n in sizes.items()}
    case = {f"x_{name}": rng.normal(size=(batch, *shape)) for name, shape in shapes.items()}
    inputs = size + (own_size if private else 0)
    for name, shape in shapes.items():
        case |= {
            f"dec_W_{name}": rng.normal(size=(inputs, 2 * shape[1])),
            f"dec_b_{name}": rng.normal(size=2 * shape[1]),
        }
    if meta["objective"] == "mopoe":
        number = 2 ** len(names) - 1
        case["row_subset"] = np.minimum(np.arange(batch) // (batch // number), number - 1)
    if meta["objective"] == "mvae":
        meta["subsets"] = [names, *([name] for name in names)]
    outputs = {part: torch.from_numpy(array).requires_grad_() for part, array in encoded.items()}
    fields = {"mu": "embedding", "lv": "log_covariance", "smu": "style_embedding", "slv": "style_log_covariance"}

    class Encoder(BaseEncoder):
        def __init__(self, index):
            super().__init__()
            self.index, self.latent_dim, self.style_dim = index, size, own_size

        def forward(self, x):
            return ModelOutput(**{fields[part]: array[:, self.index] for part, array in outputs.items()})

    class Decoder(BaseDecoder):
        def __init__(self, name):
            super().__init__()
            self.name, self.latent_dim = name, inputs

        def forward(self, z):
            output = z @ torch.from_numpy(case[f"dec_W_{self.name}"]) + torch.from_numpy(case[f"dec_b_{self.name}"])
            return ModelOutput(reconstruction=output.reshape(*z.shape[:-1], *shapes[self.name]))

    noise = []

    def normal(self, sample_shape=()):
        noise.append(rng.normal(size=(*sample_shape, *self.loc.shape)))
        return self.loc + self.scale * torch.from_numpy(noise[-1])

    def laplace(self, sample_shape=()):
        u = rng.uniform(-1 + 1e-9, 1, size=(*sample_shape, *self.loc.shape))
        noise.append(u)
        return self.loc - self.scale * torch.from_numpy(np.sign(u) * np.log1p(-np.abs(u)))

    monkeypatch.setattr(torch.distributions.Normal, "rsample", normal)
    monkeypatch.setattr(torch.distributions.Laplace, "rsample", laplace)
    options = {
        "n_modalities": len(names),
        "latent_dim": size,
        "input_dims": shapes,
        "uses_likelihood_rescaling": meta["rescaling"],
        "decoder_dist_params": {name: {"scale": meta["scale"]} for name in names},
        "beta": meta["beta"],
    }
    options |= {"alpha": meta["alpha"]} if "alpha" in meta else {}
    options |= {"warmup": meta.get("warmup", 0)} if meta["objective"] == "mvae" else {}
    if "estimator" in meta:
        options |= {"K": meta["K"], "loss": meta["estimator"], "prior_and_posterior_dist": meta["posterior"]}
    if meta["objective"] == "mmvae_plus":
        options |= {"modalities_specific_dim": own_size}
    if "beta_private" in meta:
        options |= {"modalities_specific_dim": dict.fromkeys(names, own_size), "beta_style": meta["beta_private"]}
    kind = {"mvae": "MVAE", "mvtcae": "MVTCAE", "mopoe": "MoPoE", "mmvae": "MMVAE", "mmvae_plus": "MMVAEPlus"}
    model, config = (getattr(models, kind[meta["objective"]] + suffix) for suffix in ("", "Config"))
    encoders, decoders = {n: Encoder(i) for i, n in enumerate(names)}, {n: Decoder(n) for n in names}
    system = model(config(**options), encoders, decoders).double().train()
    data = MultimodalBaseDataset({name: torch.from_numpy(case[f"x_{name}"]) for name in names})
    loss = system(data, epoch=meta.get("epoch", 1), batch_ratio=meta.get("batch_ratio", 0)).loss
    loss.backward()
    case |= {f"noise_{i}": array for i, array in enumerate(noise)}
    return case, encoded, loss.item(), {part: array.grad.numpy() for part, array in outputs.items()}
