"""The known-answer bench: what it reports of samples whose errors are known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import known_answer
from benchmarks.known_answer import Method, Settings
from sbm_jax.errors import SbmError
from sbm_jax.mixtures import GaussianMixture, random_mixture
from sbm_jax.sampling import CONDITIONINGS, GRIDS, SOLVERS, SamplerOptions

FIRST = np.array([True, False, False])


@pytest.fixture(scope="module")
def bench():
    return known_answer.make_bench(random_mixture(), num_conditions=4, num_samples=400, seed=7)


@pytest.fixture(scope="module")
def two_far_modes():
    """Two components with the same first modality, far apart in the second."""
    means = np.array([[[0.0], [-1.0]], [[0.0], [1.0]]])
    covariances = np.tile(np.diag([1.0, 1e-4]), (2, 1, 1))
    return GaussianMixture(np.array([0.3, 0.7]), means, covariances).standardized()


def test_samples_of_one_mode_have_the_weight_of_the_other_as_their_error(two_far_modes):
    problem = known_answer.make_problem(two_far_modes, np.array([True, False]), num_conditions=3, seed=0)
    samples = jnp.broadcast_to(jnp.asarray(two_far_modes.means[1].reshape(1, 1, 2), jnp.float32), (3, 50, 2))
    judged = known_answer.judge(problem, samples)
    np.testing.assert_allclose(judged["mode_weights"], 0.3, rtol=1e-5)
    np.testing.assert_allclose(judged["coherence"], 0.7, rtol=1e-5)
    np.testing.assert_allclose(judged["coherence_exact"], 0.3**2 + 0.7**2, rtol=1e-5)
    # All samples are equal, at (1 - 0.4) / sd of the mean.
    np.testing.assert_allclose(judged["covariance"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(judged["mean"], abs(1 - 0.4) / np.sqrt(1e-4 + 4 * 0.3 * 0.7), rtol=1e-3)
    assert judged["diverged"] == 0


def test_exact_samples_have_errors_that_fall_with_their_number(bench):
    few, many = (bench.floors["first", count] for count in (100, 400))
    for metric in known_answer.METRICS:
        np.testing.assert_allclose(few[metric] / many[metric], 2.0, rtol=0.35)
    np.testing.assert_allclose(many["coherence"], many["coherence_exact"], atol=0.02)


def test_diverged_samples_are_counted_and_left_out(bench):
    problem = bench.problems["first"]
    samples = np.array(known_answer._draw_exactly(problem.conditional, jax.random.key(0), 400))
    clean = known_answer.judge(problem, jnp.asarray(samples[:, :300]))
    samples[:, 300:, -1] = np.nan
    judged = known_answer.judge(problem, jnp.asarray(samples))
    assert judged["diverged"] == 0.25
    for metric in known_answer.METRICS:
        np.testing.assert_allclose(judged[metric], clean[metric], rtol=1e-3)
    assert np.isnan(known_answer.judge(problem, jnp.full((4, 8, 24), jnp.nan))["mode_weights"])


def test_time_per_modality_is_right_where_a_single_time_is_biased(bench):
    right = Method("", SamplerOptions(num_steps=20))
    biased = Method("", SamplerOptions(num_steps=20, conditioning="clean"))
    rows = [row for row in bench.rows([right, biased], 20.0) if row["observed"] == "first"]
    assert rows[0]["mode_weights"] < 2 * rows[0]["mode_weights_floor"]
    assert rows[1]["mode_weights"] > 0.2
    assert [row["evaluations"] for row in rows] == [20, 20]
    json.dumps(rows, allow_nan=False)


def test_every_solver_conditioning_and_grid_is_run():
    methods = list(known_answer.all_methods(0.7, full=True))
    assert len({(m.options, m.gaussian_start) for m in methods}) == len(methods)
    for field, known in (("solver", SOLVERS), ("conditioning", CONDITIONINGS), ("grid", GRIDS)):
        assert {getattr(method.options, field) for method in methods} == set(known)
    assert {m.options.num_particles for m in methods if m.line == "particles"} == {4, 16, 64, 256}
    assert max(m.evaluations for m in known_answer.all_methods(0.7, full=False)) == 50 * 64


def test_large_mixtures_are_given_fewer_samples():
    assert known_answer.affordable(random_mixture()) == (24, 1024)
    large = random_mixture(separations=(0.2,) * 6, num_components=10, size=32)
    assert known_answer.affordable(large) == (8, 256)
    assert [known_answer.samples_of(cost, 1024) for cost in (200, 3200)] == [1024, 256]


def test_a_run_keeps_its_lines_and_a_plot(tmp_path, monkeypatch, capsys):
    arrays = {"weights": np.array([0.5, 0.5]), "means": 90.0 * np.array([[[1.0], [1.0]], [[-1.0], [-1.0]]])}
    np.savez(tmp_path / "m.npz", **arrays, covariances=np.tile(np.eye(2), (2, 1, 1)))
    monkeypatch.setattr(known_answer, "quick_methods", lambda time: [Method("SDE", SamplerOptions(num_steps=3))])
    settings = Settings(str(tmp_path / "m.npz"), conditions=2, samples=2, quick=True, out=str(tmp_path / "out"))
    rows = known_answer.run(settings)
    lines = [json.loads(line) for line in (tmp_path / "out" / "known_answer.jsonl").read_text().splitlines()]
    assert lines == [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == rows
    assert lines[0]["mixture"] == "m.npz"
    np.testing.assert_allclose(lines[0]["standardised_from"], np.sqrt(90.0**2 + 1), rtol=1e-5)
    assert [row["observed"] for row in rows] == ["first"]  # of two modalities, all but the last is the first
    assert (tmp_path / "out" / "known_answer.png").read_bytes().startswith(b"\x89PNG")
    known_answer.print_tables(rows)
    assert "VP (0.1, 20), observed: first" in capsys.readouterr().out


def test_bad_settings_are_named():
    with pytest.raises(SbmError, match="beta_max"):
        Settings(beta_max=(20.0, 0.05))
    with pytest.raises(SbmError, match="--samples"):
        Settings(samples=-1)
