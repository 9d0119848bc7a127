"""A generator whose coherence is known goes through the whole evaluation."""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sbm_jax.errors import SbmError
from sbm_jax.evaluation import EvaluationConfig, Subject, Tools, evaluate
from sbm_jax.evaluation.metrics import DEFAULT
from sbm_jax.system import Generated
from sbm_jax.types import Split

MODALITIES = ("a", "b", "attributes")
NUM_CLASSES = 4
SHAPES = {"a": (2, 2, 1), "b": (3, 2, 3), "attributes": (5,)}
AMOUNTS = {"num_examples": 13, "num_unconditional": 40, "batch_size": 8, "num_repeats": 2, "num_figure_examples": 3}
FAMILIES = ("given_rest", "random", "fixed_order", "to_target", "from_one", "unconditional")
TOOLS = ("reconstruction", "classifier", "sampling")  # what is measured beside the families of observed sets


def config_of(*names, sets=FAMILIES, targets=(), **amounts):
    """Return a config with some metrics, or all, and coherence of some families."""
    metrics = {name: {} for name in names or DEFAULT} | {"coherence": {"sets": sets, "targets": targets}}
    return EvaluationConfig(**AMOUNTS | {"metrics": metrics} | amounts)


CONFIG = config_of()


def images(digits):
    """Data whose every element is digit / 255."""
    return {
        name: jnp.broadcast_to(digits[(...,) + (None,) * len(shape)] / 255, (*digits.shape, *shape))
        for name, shape in SHAPES.items()
    }


def classifier(data):
    return {name: jnp.round(255 * x.reshape(len(x), -1)[:, 0]).astype(int) for name, x in data.items()}


def split(labels=True):
    digits = np.arange(20) % NUM_CLASSES
    data = {name: np.asarray(jnp.round(255 * x)).astype(np.uint8) for name, x in images(digits).items()}
    return Split(data, {"label": digits} if labels else {})


def generator(unobserved):
    """Return a generator whose unobserved entries show `unobserved(key, given digit or 0, shape)`."""

    def generate(key, data, observed, num_samples):
        observed = jnp.asarray(observed)
        digits = classifier(data)
        stacked = jnp.stack([digits[name] for name in MODALITIES], axis=1)
        given = jnp.where(observed, stacked, 0).max(axis=1)
        shown = jnp.where(observed, stacked, unobserved(key, given[:, None], observed.shape))
        samples = {
            name: jnp.repeat(images(shown[:, m])[name][:, None], num_samples, axis=1)
            for m, name in enumerate(MODALITIES)
        }
        free_rows = (~observed).any(axis=1).sum()
        return Generated(samples, None, {"network_evaluations": jnp.array(7), "diverged": free_rows})

    return generate


def perfect(key, given, shape):
    return jnp.broadcast_to(given, shape)


def constant(key, given, shape):
    return jnp.ones(shape, int)


def uniform(key, given, shape):
    return jax.random.randint(key, shape, 0, NUM_CLASSES)


JUDGES = Tools({"label": classifier}, {"label": NUM_CLASSES})


def judge(unobserved, config=CONFIG, **arguments):
    data, tools = arguments.pop("split", split()), arguments.pop("tools", JUDGES)
    subject = Subject(generator(unobserved), **{"reconstruct": lambda x: x} | arguments)
    return evaluate(subject, data, MODALITIES, jax.random.key(0), config, tools)


def test_perfect_generator():
    metrics, not_available, _ = judge(perfect)
    # Real examples of one class are equal here, and there are neither encoders nor likelihoods.
    missing = {
        "diversity/given_1",
        "latents/cosine/given_rest",
        "likelihood/elbo",
        "sharpness/given_rest",
        "inception/fid",
    }
    missing |= {"codecs/entries_in_use"}
    assert set(not_available) == missing
    for name in (
        "given_rest",
        "given_rest/b",
        "given_1",
        "given_2",
        "fixed_order/given_1",
        "fixed_order/given_2/last",
    ):
        assert metrics[f"coherence/{name}"].value == 1
    assert metrics["coherence/given_rest"].n == 3 * 13 * 2
    assert metrics["coherence/given_1"] == (1, 0, 13 * 2, "repeats")
    assert metrics["classifier/accuracy"] == (1, 0, 13 * 3, "batches")
    assert metrics["classifier/reconstruction/b"].value == 1
    assert metrics["reconstruction/mse/attributes"] == (0, 0, 13, "batches")


def test_all_metrics_have_their_names():
    metrics = judge(perfect).metrics
    assert {name for name in metrics if not name.startswith(("classifier/", "reconstruction/"))} == {
        "coherence/given_rest",
        *(f"coherence/given_rest/{name}" for name in MODALITIES),
        *(f"coherence/given_{k}" for k in (1, 2)),
        *(f"coherence/fixed_order/given_{k}{last}" for k in (1, 2) for last in ("", "/last")),
        *(f"coherence/to_target/given_{k}/{MODALITIES[0]}" for k in (1, 2)),
        *(f"coherence/from/{one}/to/{other}" for one, other in itertools.permutations(MODALITIES, 2)),
        *(f"coherence/unconditional_{k}" for k in (2, 3, "all")),
        *(f"coherence/unconditional_majority_{k}" for k in (2, 3)),
        "coverage/min",
        *(f"coverage/{name}" for name in ("min_expected", "total_variation", "total_variation_expected")),
        *(f"coverage/class_{k}" for k in range(NUM_CLASSES)),
        "sampling/network_evaluations",
        "sampling/samples_per_second",
        "sampling/diverged",
    }


def test_targets_are_generated_from_one_more_at_a_time():
    config = config_of("coherence", sets=("to_target",), targets=MODALITIES[1:])
    found = {name for name in judge(perfect, config).metrics if name.startswith("coherence/")}
    assert found == {f"coherence/to_target/given_{k}/{name}" for k in (1, 2) for name in MODALITIES[1:]}
    with pytest.raises(SbmError, match=r"unknown modality in config\.evaluation\.metrics\.coherence\.targets"):
        judge(perfect, config_of("coherence", sets=("to_target",), targets=("sound",)))


def test_constant_generator_is_right_for_its_digit_only():
    metrics, _, figures = judge(constant)
    rows = np.asarray(jax.random.permutation(jax.random.split(jax.random.key(0))[0], 20))[:13]
    expected = np.mean(rows % NUM_CLASSES == 1)
    assert metrics["coherence/given_rest"].value == pytest.approx(expected)
    assert metrics["coherence/given_1"].value == pytest.approx(expected)
    assert metrics["coherence/unconditional_all"].value == 1
    assert metrics["coverage/class_1"] == (1, 0, 80, "repeats")
    assert metrics["coverage/min"].value == 0
    np.testing.assert_array_equal(figures["class_shares"][:, 1], 1)


def test_each_direction_has_its_number():
    """What is generated shows the given digit in `b` only, and if it is `a` that is given."""

    def generate(key, data, observed, num_samples):
        made = generator(perfect)(key, data, observed, num_samples)
        from_a = jnp.asarray(observed)[:, 0] & ~jnp.asarray(observed)[:, 1]
        wrong = {name: x + (0 if name == "b" else 1) / 255 for name, x in made.data.items()}
        wrong["b"] = jnp.where(from_a[:, None, None, None, None], made.data["b"], made.data["b"] + 1 / 255)
        masks = {name: jnp.asarray(observed)[:, m] for m, name in enumerate(MODALITIES)}
        kept = {n: jnp.where(masks[n].reshape(-1, *(1,) * (x.ndim - 1)), x, wrong[n]) for n, x in made.data.items()}
        return made._replace(data=kept)

    config = config_of("coherence", sets=("from_one", "given_rest"))
    metrics = evaluate(Subject(generate), split(), MODALITIES, jax.random.key(0), config, JUDGES).metrics
    found = {name.removeprefix("coherence/from/"): e.value for name, e in metrics.items() if "/from/" in name}
    pairs = itertools.permutations(MODALITIES, 2)
    assert found == {f"{given}/to/{target}": float((given, target) == ("a", "b")) for given, target in pairs}
    assert metrics["coherence/from/a/to/b"].n == 2 * 13


def test_from_one_of_two_is_given_the_rest():
    config = config_of("coherence", sets=("from_one", "given_rest"))
    data = split()
    two = Split({name: data.data[name] for name in MODALITIES[:2]}, data.labels)

    def generate(key, data, observed, num_samples):
        made = generator(perfect)(
            key,
            {**data, "attributes": data["b"].reshape(len(data["b"]), -1)[:, :5]},
            np.pad(observed, ((0, 0), (0, 1)), constant_values=True),
            num_samples,
        )
        return made._replace(data={name: made.data[name] for name in data})

    metrics = evaluate(Subject(generate), two, MODALITIES[:2], jax.random.key(0), config, JUDGES).metrics
    rest = {name: e for name, e in metrics.items() if "given_rest/" in name}
    assert [*rest.values()] == [metrics["coherence/from/b/to/a"], metrics["coherence/from/a/to/b"]]


def test_random_generator_is_at_chance():
    config = config_of(num_examples=20, num_unconditional=2000, batch_size=500)
    metrics = judge(uniform, config).metrics
    assert metrics["coherence/unconditional_2"].value == pytest.approx(7 / 16, abs=0.03)
    assert metrics["coherence/unconditional_all"].value == pytest.approx(1 / 16, abs=0.02)
    assert metrics["coherence/unconditional_majority_2"].value == pytest.approx(10 / 16, abs=0.03)
    assert metrics["coverage/min"].value == pytest.approx(1 / 4, abs=0.03)
    assert metrics["coherence/unconditional_2"].std > 0


def test_diverged_samples_are_never_right():
    metrics = judge(lambda key, given, shape: jnp.full(shape, jnp.nan)).metrics
    assert metrics["coherence/given_rest"].value == 0
    assert metrics["coherence/unconditional_majority_2"].value == 0
    assert metrics["coverage/min"].value == 0


def test_padding_is_not_counted():
    """The fake reports every row with something unobserved as diverged: padding has nothing unobserved."""
    metrics = judge(perfect).metrics
    figure_rows = 3 * 3 + 3 * 3 * 3 + 16
    conditional = 13 * (3 + 2 + 2 + 2 + 3)
    assert metrics["sampling/diverged"].n == 2 * (conditional + 40) + figure_rows
    assert metrics["sampling/diverged"].value == 1
    assert metrics["sampling/network_evaluations"].value == 7
    assert metrics["sampling/samples_per_second"].value > 0


def test_one_batch_shape_and_progress_to_the_end():
    shapes, totals, steps = set(), [], []
    generate = generator(perfect)

    @contextlib.contextmanager
    def progress(total):
        totals.append(total)
        yield steps.append

    def counted(key, data, observed, num_samples):
        shapes.add((observed.shape, num_samples, *(x.shape for x in data.values())))
        return generate(key, data, observed, num_samples)

    evaluate(
        Subject(counted),
        split(),
        MODALITIES,
        jax.random.key(0),
        CONFIG,
        JUDGES,
        progress,
    )
    assert len(shapes) == 1
    assert sum(steps) == totals[0]


def test_sample_grids():
    figures = judge(perfect).figures
    given_one = figures["samples/given_one/data/b"]
    assert given_one.shape == (3, 3, *SHAPES["b"])
    np.testing.assert_array_equal(figures["samples/given_one/observed"][2], np.eye(3, dtype=bool))
    digits = np.round(255 * given_one[:, :, 0, 0, 0])
    assert (digits == digits[:, :1]).all()
    assert len(set(digits[:, 0])) == 3  # examples of different digits
    rest = figures["samples/given_rest/data/attributes"]
    assert rest.shape == (3, 4, *SHAPES["attributes"])
    np.testing.assert_allclose(rest, np.broadcast_to(rest[:, :1], rest.shape), atol=1e-6)
    assert figures["samples/unconditional/data/a"].shape == (1, 16, *SHAPES["a"])
    assert figures["samples/reconstruction/data/a"].shape == (3, 2, *SHAPES["a"])


def test_missing_labels_and_classifier_are_explained():
    metrics, not_available, figures = judge(perfect, split=split(labels=False), tools=Tools(), reconstruct=None)
    assert set(metrics) == {f"sampling/{x}" for x in ("network_evaluations", "samples_per_second", "diverged")}
    assert "classifier" in not_available["coherence/given_rest"]
    assert "autoencoder" in not_available["reconstruction/mse"]
    assert "samples/given_one/observed" in figures

    metrics, not_available, _ = judge(perfect, split=split(labels=False))
    assert "labels" in not_available["coherence/given_k"]
    assert metrics["coherence/unconditional_all"].value == 1


def test_without_labels_all_that_needs_none_is_measured():
    metrics, not_available, figures = judge(perfect, split=split(labels=False))
    measured = {name.rpartition("/")[0] for name in metrics}
    assert measured == {"coherence", "coverage", "reconstruction/mse", "sampling"}
    assert {name for name in metrics if name.startswith("coherence/")} == {
        *(f"coherence/unconditional_{k}" for k in (2, 3, "all")),
        *(f"coherence/unconditional_majority_{k}" for k in (2, 3)),
    }
    reasons = {name for name, reason in not_available.items() if "labels" in reason}
    assert reasons == {
        "coherence/given_rest",
        "coherence/given_k",
        "coherence/fixed_order/given_k",
        "coherence/to_target/given_k",
        "coherence/from/<given>/to/<target>",
        "coverage/min_expected",
        "coverage/total_variation",
        "coverage/total_variation_expected",
        "diversity/given_1",
        "classifier/accuracy",
    }
    grids = {name.split("/")[1] for name in figures if name.startswith("samples/")}
    assert grids == {"given_one", "given_rest", "unconditional", "reconstruction"}


def test_names_of_modalities_mean_nothing_to_the_evaluation():
    """A group of samples knows what it is for; it is not read from names."""
    names = dict(zip(MODALITIES, ("given_1/last", "a/b", "1"), strict=True))
    data = split()
    renamed = Split({names[name]: data.data[name] for name in MODALITIES}, data.labels)

    def generate(key, data, observed, num_samples):
        made = generator(perfect)(key, {name: data[names[name]] for name in MODALITIES}, observed, num_samples)
        return made._replace(data={names[name]: values for name, values in made.data.items()})

    config = config_of("coherence", targets=tuple(names.values()))
    metrics = evaluate(Subject(generate), renamed, tuple(names.values()), jax.random.key(0), config, JUDGES).metrics
    assert {name: e.value for name, e in metrics.items() if "to_target" in name} == {
        f"coherence/to_target/given_{k}/{name}": 1 for k in (1, 2) for name in names.values()
    }


def varied(names):
    """Return a generator and data whose examples of one class differ in the modalities of `names` only."""
    data = split()
    noise = np.random.default_rng(0).integers(0, 100, (20, 1))
    values = {name: x.astype(np.float32) / 255 for name, x in data.data.items()}
    for name in names:
        values[name] += noise.reshape(20, *(1,) * (values[name].ndim - 1)) / np.float32(255)

    def generate(key, data, observed, num_samples):
        fresh = {
            name: jnp.asarray(x) + jax.random.normal(key, (len(x), *(1,) * (x.ndim - 1))) for name, x in data.items()
        }
        info = {"network_evaluations": jnp.array(1), "diverged": jnp.array(0)}
        return Generated({name: x[:, None] for name, x in fresh.items()}, None, info)

    return generate, Split(values, data.labels)


def test_a_modality_without_differences_is_left_out_of_diversity():
    config = config_of("diversity", sets=())
    generate, data = varied(("a", "b"))
    metrics, not_available, _ = evaluate(Subject(generate), data, MODALITIES, jax.random.key(0), config)
    assert np.isfinite(metrics["diversity/given_1"].value)
    assert "real examples" in not_available["diversity/given_1/attributes"]
    assert "diversity/given_1" not in not_available

    # Where it is the only one that is generated, there is nothing to measure.
    generate, data = varied(("a",))
    metrics, not_available, _ = evaluate(Subject(generate), data, MODALITIES, jax.random.key(0), config)
    assert metrics["diversity/given_1"].n < 2 * 13
    assert {"diversity/given_1/b", "diversity/given_1/attributes"} <= not_available.keys()


def test_what_is_not_finite_is_left_out_and_counted():
    def lost(data):
        return {name: x.at[0].set(jnp.nan) for name, x in jax.tree.map(jnp.asarray, data).items()}

    config = config_of(*TOOLS, "class_shares", "diversity", sets=("unconditional", "random"))
    metrics, _, _ = judge(perfect, config, reconstruct=lost)
    assert metrics["reconstruction/mse/a"][:3] == (0, 0, 13 - 2)  # one of each of two batches
    assert metrics["classifier/reconstruction/a"].n == 13  # where it is wrong
    assert metrics["classifier/reconstruction/a"].value == pytest.approx(11 / 13)

    def nowhere(data):
        return {name: jnp.full_like(x, jnp.nan) for name, x in data.items()}

    metrics, not_available, _ = judge(perfect, config, reconstruct=nowhere)
    assert "reconstruction/mse/a" not in metrics
    assert not_available["reconstruction/mse/a"] == "no reconstruction is finite"
    generate, data = varied(MODALITIES)

    def diverged(key, given, observed, num_samples):
        made = generate(key, given, observed, num_samples)
        return made._replace(data={name: x * jnp.nan for name, x in made.data.items()})

    metrics, not_available, _ = evaluate(Subject(diverged), data, MODALITIES, jax.random.key(0), config, JUDGES)
    assert not_available["diversity/given_1"] == "no pair of samples is finite"
    assert metrics["coherence/given_1"][:3] == (0, 0, 26)
    assert metrics["coverage/total_variation"].value == 1
    assert all(np.isfinite(e.value) for e in metrics.values())


def test_sets_that_are_not_asked_for_are_listed():
    config = config_of("coherence", sets=("random",), num_examples=5, num_repeats=1)
    metrics, not_available, _ = judge(perfect, config)
    assert "coherence/given_2" in metrics
    assert "coherence/given_rest" not in metrics
    assert "metrics.coherence.sets" in not_available["coherence/given_rest"]
    assert not [name for name in metrics if name.startswith("coverage")]
    assert metrics["coherence/given_2"].std is None


def test_a_metric_has_one_name_however_what_is_given_is_ordered():
    for given in (("a", "b"), ("b", "a")):
        config = config_of("coherence", metrics={"mse": {"modality": "attributes", "given": given}})
        names = {f"{measure}/given_a+b/attributes" for measure in ("mse", "mse_over_variance")}
        assert judge(perfect, config).metrics.keys() == names


def test_bad_settings_are_named():
    with pytest.raises(SbmError, match=r"'randm'.*'random'"):
        config_of(sets=("randm",))
    with pytest.raises(SbmError, match="num_repeats must be at least 1"):
        EvaluationConfig(num_repeats=0)
    with pytest.raises(SbmError, match="has 20 rows"):
        judge(perfect, config_of(num_examples=21))
    with pytest.raises(SbmError, match="unknown modality 'c'"):
        evaluate(Subject(generator(perfect)), split(), ("a", "c"), jax.random.key(0), CONFIG)
    with pytest.raises(SbmError, match=r"unknown metric .*'coherense'\. Did you mean 'coherence'"):
        EvaluationConfig(metrics={"coherense": {}})
    with pytest.raises(SbmError, match="must be a group of options"):
        EvaluationConfig(metrics={"coherence": 3})
    with pytest.raises(SbmError, match="expected a subclass of"):
        EvaluationConfig(metrics={"mine": {"name": "sbm_jax.evaluation:evaluate"}})
