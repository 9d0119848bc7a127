"""MVAE, MMVAE, MoPoE, MVTCAE and MMVAE+ on tiny data: every variant trains, and conditions on what it is given."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.config import build
from sbm_jax.data import hide
from sbm_jax.errors import SbmError
from sbm_jax.losses import bounds
from sbm_jax.losses.bounds import BoundTerms
from sbm_jax.networks.codecs import AutoencoderNetworkConfig
from sbm_jax.sampling import SamplerOptions
from sbm_jax.systems.joinings import JOININGS, Mmvae, MmvaePlus, Mopoe, Mvae, Mvtcae, random_subsets
from sbm_jax.systems.joint_posterior import JointPosterior
from sbm_jax.systems.joint_posterior_config import JointPosteriorConfig
from sbm_jax.types import Dataset, Modality, Split, TrainingConfig

MODALITIES = (
    Modality("image", (4, 4, 1), 3, "mlp"),
    Modality("words", (6,), 3, "mlp", "categorical"),
    Modality("level", (2,), 3, "mlp", "laplace"),
)
CONFIG = JointPosteriorConfig(TrainingConfig(2, 4), AutoencoderNetworkConfig((16,)), latent_size=4)
VARIANTS = {
    "original": {cls.name: cls() for cls in JOININGS} | {"mmvae": Mmvae(num_samples=3)},
    "sbm_paper": {
        "mvae": Mvae(likelihood="", prior_beside_one=False),
        "mmvae": Mmvae(likelihood="", posterior="normal", estimator="elbo", beta=2.5),
        "mopoe": Mopoe(likelihood="", given="mixture"),
        "mvtcae": Mvtcae(likelihood="", beta=0.1, alpha=0.9),
        "mmvae_plus": MmvaePlus(beta=5.0),
    },
}
CASES = [(method, variant) for variant, methods in VARIANTS.items() for method in methods]


def _split(num_rows, seed):
    rng = np.random.default_rng(seed)
    data = {
        "image": rng.integers(0, 256, (num_rows, 4, 4, 1), dtype=np.uint8),
        "words": np.eye(6, dtype=np.float32)[rng.integers(0, 6, num_rows)],
        "level": rng.normal(size=(num_rows, 2)).astype(np.float32),
    }
    return Split(data)


DATASET = Dataset(_split(10, 0), _split(4, 1), _split(5, 2), {}, {})


def _float(split):
    return {
        name: jnp.asarray(v / (255.0 if v.dtype == np.uint8 else 1.0), jnp.float32) for name, v in split.data.items()
    }


@functools.cache
def _system(method, variant):
    return JointPosterior(method, MODALITIES, CONFIG, VARIANTS[variant][method])


@functools.cache
def _params(method, variant):
    return _system(method, variant)._init(jax.random.key(0))


@pytest.mark.parametrize("method", ["mmvae", "mmvae_plus"])
def test_decoding_a_part_at_a_time_changes_nothing(method, monkeypatch):
    system, params = _system(method, "original"), _params(method, "original")

    def gradient():
        return jax.jit(jax.value_and_grad(lambda p: system.terms(p, jax.random.key(1), _float(DATASET.train)).mean()))

    whole = gradient()(params)
    monkeypatch.setattr(bounds, "DECODED_AT_ONCE", 20)  # two of the nine latents of a row
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), gradient()(params), whole)


@pytest.fixture(params=CASES, ids="-".join)
def case(request):
    return _system(*request.param), _params(*request.param)


def _loss(system, params, data, present=None, key=0):
    terms = system.terms(params, jax.random.key(key), data, present)
    return terms.loss if isinstance(terms, BoundTerms) else terms


def test_the_loss_falls(case):
    system, params = case
    data = _float(DATASET.train)

    @jax.jit
    def step(params):
        value, gradient = jax.value_and_grad(lambda p: _loss(system, p, data).mean())(params)
        return value, jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)

    first, params = step(params)
    for _ in range(20):
        last, params = step(params)
    assert np.isfinite(last)
    assert last < first


def test_what_is_missing_does_not_matter(case):
    """Neither the loss of a row, nor any gradient, depends on the data of modalities that it lacks."""
    system, params = case
    data = _float(DATASET.train)
    present = jnp.array([[True, True, True], [True, False, True], [False, True, False]] * 3 + [[True, True, False]])
    other = {**data, "words": jnp.where(present[:, 1:2], data["words"], 0.25)}
    run = jax.jit(jax.value_and_grad(lambda p, d: _loss(system, p, d, present).mean()))
    first, second = run(params, data), run(params, other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), first, second)


def test_given_all_is_the_case_without_a_mask(case):
    system, params = case
    data = _float(DATASET.train)
    np.testing.assert_allclose(
        _loss(system, params, data, jnp.ones((10, 3), bool)), _loss(system, params, data), rtol=1e-5
    )


def test_observed_comes_back_and_hidden_does_not_matter(case):
    system, params = case
    data, products = _float(DATASET.test), {system.name: params}
    observed = np.array([[True, False, True], [False, True, False], [False] * 3, [True] * 3, [True, True, False]])
    generate = jax.jit(lambda data: system.generate(products, jax.random.key(1), data, observed, SamplerOptions(), 2))
    first = generate(data)
    hidden = {
        m.name: jnp.where(observed[:, i].reshape(5, *[1] * len(m.shape)), data[m.name], jnp.nan)
        for i, m in enumerate(MODALITIES)
    }
    second = generate(hidden)
    for i, modality in enumerate(MODALITIES):
        samples = np.asarray(first.data[modality.name])
        assert samples.shape == (5, 2, *modality.shape)
        given = np.repeat(np.asarray(data[modality.name])[:, None], 2, axis=1)
        np.testing.assert_array_equal(samples[observed[:, i]], given[observed[:, i]])
        np.testing.assert_allclose(samples, second.data[modality.name], rtol=1e-5, atol=1e-6)
    assert not np.allclose(first.data["image"][1, 0], first.data["image"][1, 1], atol=1e-6)
    assert int(first.info["diverged"]) == 0


def test_nothing_given_needs_no_data(case):
    system, params = case
    result = system.generate({system.name: params}, jax.random.key(0), {}, jnp.zeros((2, 3), bool), SamplerOptions())
    np.testing.assert_allclose(result.data["words"].sum(axis=-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("method", ["mvae", "mopoe", "mvtcae"])
def test_conditioning_is_the_product_of_what_is_observed(method):
    """Known experts: precisions add up, with that of the prior for MVAE, and for MoPoE given all."""
    system, rng = _system(method, "original"), np.random.default_rng(0)
    mean, raw = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4))
    observed = np.array([[True, False, True], [True, True, True]])
    experts = tuple(jnp.asarray(array, jnp.float32) for array in (mean, raw))
    location, scale = system.joining.component(jax.random.key(0), *experts, jnp.asarray(observed), 1, mixes=False)
    prior = {"mvae": [1, 1], "mopoe": [0, 1], "mvtcae": [0, 0]}[method]
    precision = np.exp(-raw) * observed[..., None]
    total = precision.sum(axis=1) + np.array(prior)[:, None]
    np.testing.assert_allclose(location[:, 0], (precision * mean).sum(axis=1) / total, rtol=1e-4)
    np.testing.assert_allclose(scale[:, 0], total**-0.5, rtol=1e-4)


def test_mopoe_as_in_the_sbm_paper_mixes_the_products_of_all_subsets():
    """Sharp experts at 0 and 12: samples lie at 0, 12 and, for the product of both, 6, a third each."""
    system = _system("mopoe", "sbm_paper")
    mean = jnp.broadcast_to(jnp.array([0.0, 12.0, 50.0])[None, :, None], (1, 3, 4))
    experts, observed = (mean, jnp.full_like(mean, -12.0)), jnp.array([[True, True, False]])
    latents = system.laws.sample_given(_params("mopoe", "sbm_paper"), jax.random.key(0), experts, observed, 3000)
    values, counts = np.unique(np.round(np.asarray(latents.joint)[0, :, 0]), return_counts=True)
    np.testing.assert_array_equal(values, [0.0, 6.0, 12.0])
    np.testing.assert_allclose(counts / 3000, 1 / 3, atol=0.04)


@pytest.mark.parametrize("joining", [Mvtcae(alpha=0.0, beta=1.0), Mmvae(num_samples=1)], ids=["mvtcae", "mmvae"])
def test_the_mean_of_log_weights_is_the_bound_that_is_trained(joining):
    """With a weight of 1 of the divergence; MMVAE+ trains another bound, with other private latents."""
    data, number = _float(DATASET.test), 600
    system = JointPosterior(joining.name, MODALITIES, CONFIG, joining)
    params = system._init(jax.random.key(0))
    weights = np.asarray(system.log_weights({joining.name: params}, jax.random.key(1), data, number))
    run = jax.jit(jax.vmap(lambda key: _loss(system, params, data, key=key)))
    losses = np.asarray(run(jnp.arange(100)))
    error = np.sqrt(weights.var(axis=1) / number + losses.var(axis=0) / 100)
    np.testing.assert_array_less(np.abs(weights.mean(axis=1) + losses.mean(axis=0)), 5 * error + 1e-3)


@pytest.mark.parametrize("method", ["mvae", "mmvae", "mopoe", "mvtcae", "mmvae_plus"])
def test_importance_weighted_bounds_are_exact_where_nothing_is_coded(method, monkeypatch):
    """Decoders that ignore the latent: whatever it is drawn from, weights must average to the likelihood."""
    system = _system(method, "original")
    params, data = jax.tree.map(jnp.zeros_like, _params(method, "original")), _float(DATASET.test)
    wide = jnp.zeros((5, 3, sum(system.sizes))), jnp.full((5, 3, sum(system.sizes)), np.log(4.0))
    monkeypatch.setattr(JointPosterior, "_experts", lambda *arguments: wide)
    weights = system.log_weights({method: params}, jax.random.key(1), data, 4000)
    bound = jax.nn.logsumexp(weights, axis=1) - jnp.log(4000.0)
    expected = (
        system._decoding(params, jax.random.key(0), data).log_likelihood(jnp.zeros((5, sum(system.sizes)))).sum(axis=-1)
    )
    np.testing.assert_allclose(bound, expected, atol=0.1)


def test_mopoe_may_have_private_latents():
    system = JointPosterior("mopoe", MODALITIES, CONFIG, Mopoe(private_size=2, beta_private=0.5))
    params, data = system._init(jax.random.key(0)), _float(DATASET.test)
    assert np.isfinite(_loss(system, params, data)).all()
    assert np.isfinite(system.log_weights({"mopoe": params}, jax.random.key(1), data, 3)).all()
    latents, _ = system._sample_prior({"mopoe": params}, jax.random.key(0), 2, 3, SamplerOptions())
    assert latents.private.shape == (2, 3, 3, 2)
    assert not np.allclose(latents.private[:, :, 0], latents.private[:, :, 1])


def test_reconstructions_have_their_own_private_latent(monkeypatch):
    """The private latent of one modality changes its reconstruction, and no other."""
    system, rng = JointPosterior("mopoe", MODALITIES, CONFIG, Mopoe(private_size=2)), np.random.default_rng(0)
    params, (mean, raw) = system._init(jax.random.key(0)), jnp.asarray(rng.normal(size=(2, 5, 3, 6)), jnp.float32)
    found = []
    for changed in (mean, mean.at[:, 1, 4:].add(1.0)):
        monkeypatch.setattr(JointPosterior, "_experts", lambda *arguments, changed=changed: (changed, raw))
        found.append(system.reconstruct({"mopoe": params}, {}))
    for name in ("image", "level"):
        np.testing.assert_array_equal(found[0][name], found[1][name])
    assert not np.allclose(found[0]["words"], found[1]["words"], atol=1e-4)


def test_likelihoods_may_weigh_the_same():
    decoding = JointPosterior("mvae", MODALITIES, CONFIG, Mvae(rescaling=True))._decoding({}, jax.random.key(0), {})
    assert decoding.rescaling == (1.0, 16 / 6, 8.0)


def test_a_mixture_takes_one_of_its_experts_for_each_sample():
    """With sharp experts at 0, 10 and 20, samples given the first two lie near 0 or 10, and are as many."""
    system = _system("mmvae", "sbm_paper")
    mean = jnp.broadcast_to(jnp.array([0.0, 10.0, 20.0])[None, :, None], (1, 3, 4))
    experts, observed = (mean, jnp.full_like(mean, -12.0)), jnp.array([[True, True, False]])
    latents = system.laws.sample_given(_params("mmvae", "sbm_paper"), jax.random.key(0), experts, observed, 2000)
    nearest = np.round(np.asarray(latents.joint)[0] / 10)
    assert set(np.unique(nearest)) == {0.0, 1.0}
    assert nearest[:, 0].mean() == pytest.approx(0.5, abs=0.05)


def test_random_subsets_have_sizes_from_two_to_all_but_one():
    sizes = np.asarray(random_subsets(jax.random.key(0), 3000, 5)).sum(axis=1)
    assert set(np.unique(sizes)) == {2, 3, 4}
    assert np.bincount(sizes)[2:].min() > 900
    assert random_subsets(jax.random.key(0), 3, 2).shape == (0, 2)


def test_what_does_not_exist_is_refused():
    for cls, options, message in (
        (Mvae, {"bta": 1.0}, "Did you mean 'beta'"),
        (Mvae, {"posterior": "normal"}, "Known: averaged, beta, latent_size"),
        (Mvae, {"scale": 0.0}, "scale is 0.0"),
        (Mvae, {"likelihood": "", "scale": 0.5}, "mvae.scale has no effect without a likelihood"),
        (Mopoe, {"given": "all"}, "unknown given"),
        (Mmvae, {"estimator": "elbo"}, "needs Gaussian"),
        (Mmvae, {"beta": 2.0}, "beta has no effect with the estimator 'iwae'"),
        (Mmvae, {"estimator": "elbo", "posterior": "normal", "num_samples": 2}, "num_samples has no effect"),
        (MmvaePlus, {"private_size": 0}, "private_size is 0"),
        (MmvaePlus, {"estimator": "elbo"}, "unknown estimator"),
    ):
        with pytest.raises(SbmError, match=message):
            build(cls, options)
    system = _system("mvae", "original")
    with pytest.raises(SbmError, match="no guidance"):
        system.generate({}, jax.random.key(0), {}, jnp.zeros((2, 3), bool), SamplerOptions(), strength=1.0)


def test_a_method_may_be_trained_in_its_own_way():
    """A method's changes are of its own stage and of no other, and a wrong one is named."""
    changed = Mopoe(training={"num_steps": 7, "optimizer": {"learning_rate": 0.5}})
    (stage,) = JointPosterior("mopoe", MODALITIES, CONFIG, changed).stages(DATASET)
    assert (stage.training.num_steps, stage.training.optimizer.learning_rate) == (7, 0.5)
    assert stage.training.batch_size == CONFIG.training.batch_size
    (plain,) = JointPosterior("mopoe", MODALITIES, CONFIG, Mopoe()).stages(DATASET)
    assert plain.training == CONFIG.training
    assert plain.settings != stage.settings
    wrong = JointPosterior("mopoe", MODALITIES, CONFIG, Mopoe(training={"steps": 7}))
    with pytest.raises(SbmError, match=r"config\.methods\.mopoe\.training.*'steps'"):
        wrong.check(SamplerOptions())


def test_a_stage_trains_on_rows_that_lack_modalities():
    """The loss of the stage is that of the objective with the rows' own masks."""
    system, params = _system("mopoe", "original"), _params("mopoe", "original")
    dataset = DATASET._replace(train=hide(DATASET.train, 0.5, 0))
    (stage,) = system.stages(dataset)
    rows = jax.tree.map(jnp.asarray, stage.rows({}))
    loss, _ = stage.loss(params, {}, jax.random.key(0), rows)
    assert not rows["present"].all()
    np.testing.assert_allclose(loss, _loss(system, params, _float(DATASET.train), rows["present"]).mean(), rtol=1e-5)
