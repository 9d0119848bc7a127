"""The throughput benchmark measures what it says, and sweeps what it is told to."""

import itertools
import json
import sys

import jax
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from benchmarks import sampler_throughput, sampling_cases, timing
from benchmarks.sampling_cases import Case
from sbm_jax.errors import SbmError

TINY = Case("mlp:8x1", steps=2, batch=8, modalities=3, observed=1)


@pytest.fixture(scope="module", autouse=True)
def _parsed_flags():
    flags.FLAGS([sys.argv[0]])


@pytest.fixture
def clock(monkeypatch):
    """Let every call take one second more than the one before, and twice that in CPU time."""
    ticks = itertools.accumulate(itertools.chain.from_iterable((0, i) for i in itertools.count(1)))
    wall = [next(ticks) for _ in range(20)]
    monkeypatch.setattr(timing.time, "perf_counter", iter(wall).__next__)
    monkeypatch.setattr(timing.time, "process_time", (2 * tick for tick in wall).__next__)


@pytest.mark.usefixtures("clock")
def test_times_are_medians_and_quartiles():
    calls = []
    times = timing.measure(lambda: calls.append(1), 5)
    assert times == {"seconds": 3.0, "seconds_q25": 2.0, "seconds_q75": 4.0, "cpu_seconds": 6.0}
    assert len(calls) == 5


@pytest.mark.usefixtures("clock")
def test_calls_are_timed_in_turn():
    calls = []
    times = timing.measure_in_turn({name: lambda name=name: calls.append(name) for name in "ab"}, 3)
    assert calls == ["a", "b"] * 3
    assert (times["a"]["seconds"], times["b"]["seconds"]) == (3.0, 4.0)


def test_rates_follow_from_times():
    times = {"seconds": 4.0, "seconds_q25": 3.0, "seconds_q75": 5.0, "cpu_seconds": 8.0}
    row = timing.rates(batch=64, evaluations=20, times=times)
    assert row.items() >= times.items()
    assert (row["samples_per_second"], row["samples_per_cpu_second"]) == (16.0, 8.0)
    assert (row["ms_per_evaluation"], row["cpu_ms_per_evaluation"]) == (200.0, 400.0)


def test_flags_are_swept():
    with flagsaver.flagsaver(networks=["mlp:8", "unet:8:plain"], steps=["2", "3"], observed=["1"], modes=["pmap"]):
        cases = list(sampler_throughput.swept_cases())
    assert [(case.network, case.steps) for case in cases] == [
        ("mlp:8", 2),
        ("mlp:8", 3),
        ("unet:8:plain", 2),
        ("unet:8:plain", 3),
    ]
    assert {(case.observed, case.mode, case.batch) for case in cases} == {(1, "pmap", 256)}


@pytest.mark.parametrize("flag", ["steps", "batches", "modalities", "observed", "chunks"])
def test_a_number_that_is_none_is_an_error(flag):
    with flagsaver.flagsaver(**{flag: ["1", "ten"]}), pytest.raises(SbmError, match=f"--{flag} is 'ten'"):
        list(sampler_throughput.swept_cases())


@pytest.mark.parametrize("network", ["unet", "unet:128,plain", "mlp:8:plain", "transformer:128x"])
def test_a_text_that_is_no_network_is_an_error(network):
    with pytest.raises(SbmError, match=r"unknown .*; write transformer:128x4"):
        sampling_cases.make_model(network)


@pytest.mark.parametrize(
    ("choice", "message"),
    [({"solver": "heum"}, "mean 'heun'"), ({"mode": "vmap"}, "mode"), ({"observed": 10}, "0 to 9")],
)
def test_a_choice_that_can_not_be_is_an_error(choice, message):
    with pytest.raises(SbmError, match=message):
        Case("mlp:8", **choice)


def test_plain_is_the_same_network_in_xla_convolutions():
    plain, default = (sampling_cases.make_model(text).network for text in ("unet:8:plain", "unet:8"))
    assert (plain.conv_mode, default.conv_mode) == ("conv", "auto")
    assert plain.clone(conv_mode="auto") == default


def test_a_row_has_the_choices_the_times_and_the_rates():
    row = sampler_throughput.run_case(TINY, repeats=2, peak_tflops=1e-3)
    assert row["network"] == "mlp:8x1"
    assert row["evaluations"] == 2
    for name in sampler_throughput.MEASURED:
        assert row[name] > 0, name
    assert row["samples_per_second"] == pytest.approx(8 / row["seconds"])
    assert row["fraction_of_peak"] == pytest.approx(row["gflop_per_second"])
    assert json.loads(json.dumps(row)) == row


@pytest.mark.slow
def test_all_modes_give_the_same_samples():
    model = sampling_cases.make_model(TINY.network)
    params, key = sampling_cases.make_params(model, TINY.modalities), jax.random.key(2)
    sampler, given = sampling_cases.make_sampler(model, TINY), sampling_cases.make_given(TINY)
    samples = {}
    for name, mode in sampling_cases.MODES.items():
        function, arguments = mode(sampler, given)
        samples[name] = np.asarray(function(params, key, arguments)).reshape(given["z"].shape)
    np.testing.assert_array_equal(samples["jit"][:, 0], given["z"][:, 0])
    for name in ("shard_map", "pmap"):
        # The first step divides by alpha, 0.007, and rounding errors with it.
        np.testing.assert_allclose(samples[name], samples["jit"], atol=1e-3)


def test_a_batch_that_does_not_split_is_an_error():
    with pytest.raises(SbmError, match=f"batch 7 does not split over {jax.device_count()} devices"):
        sampler_throughput.run_case(Case("mlp:8x1", batch=7, mode="pmap"), repeats=1)


def test_operations_of_an_evaluation_leave_out_what_is_done_once():
    def flops(observed):
        return sampling_cases.evaluation_flops(Case("transformer:32x2", batch=4, modalities=4, observed=observed))

    # One token of four runs; keys and values of the others are computed once.
    assert 0.2 < flops(3) / flops(0) < 0.5


def test_the_table_shows_the_choices_that_differ():
    times = {"seconds": 1.0, "seconds_q25": 0.5, "seconds_q75": 2.0}
    rows = [{"runner": "sbm_jax", "network": "mlp:8", "steps": steps, "batch": 4, **times} for steps in (10, 20)]
    table = sampler_throughput.table("title", rows, sampler_throughput.MEASURED)
    assert [column.header for column in table.columns] == ["network", "steps", "seconds"]
    assert list(table.columns[2].cells) == ["1 (0.5-2)"] * 2
