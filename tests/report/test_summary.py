import io

import pytest
from rich.console import Console

from sbm_jax.evaluation.estimates import SPREADS
from sbm_jax.report import summary, terminal
from sbm_jax.types import NOT_ASKED


def estimate(value, std=0.01, n=100):
    return {"value": value, "std": std, "n": n}


METRICS = {
    "coherence/given_rest": estimate(0.8),
    "coherence/unconditional_2": estimate(0.5),
    "coherence/unconditional_3": estimate(0.3),
    **{f"coverage/class_{d}": estimate(0.25) for d in range(4)},
}


def test_chance():
    assert summary.chance("coherence/given_1", METRICS) == 1 / 4
    assert summary.chance("coherence/unconditional_2", METRICS) == pytest.approx(1 - (3 / 4) ** 2)
    assert summary.chance("coherence/unconditional_all", METRICS) == pytest.approx(1 / 16)
    assert summary.chance("coherence/unconditional_majority_2", METRICS) is None
    assert summary.chance("sampling/diverged", METRICS) is None
    assert summary.chance("coherence/given_1", {"coherence/given_1": estimate(1.0)}) is None
    assert summary.chance("coverage/class_0", METRICS) is None  # a share is no guess


def test_further_questions_have_their_own_chance_and_real_shares():
    colour = {f"coverage/colour/class_{k}": estimate(0.5) for k in range(2)} | {"coherence/colour/given_1": estimate(1)}
    metrics = {**METRICS, **colour, "coherence/colour/unconditional_2": estimate(1)}
    assert summary.chance("coherence/colour/given_1", metrics) == 1 / 2
    assert summary.chance("classifier/colour/accuracy", metrics) == 1 / 2
    assert summary.chance("coherence/colour/unconditional_all", metrics) == 1 / 2
    assert summary.chance("coherence/given_1", metrics) == 1 / 4
    real = {
        f"coverage/{name}": estimate(value) for name, value in (("real/class_1", 0.2), ("colour/real/class_1", 0.6))
    }
    assert summary.real_counterpart("coverage/colour/class_1", metrics, real)["value"] == 0.6
    assert summary.real_counterpart("coverage/class_1", metrics, real)["value"] == 0.2


def test_the_rarest_class_is_compared_with_that_of_a_perfect_generator():
    metrics = {**METRICS, "coverage/min": estimate(0.2), "coverage/min_expected": estimate(0.23)}
    assert summary.reference("coverage/min", metrics) == 0.23
    assert summary.reference("coherence/given_1", metrics) == 1 / 4
    assert summary.reference("coverage/min", METRICS) is None


def test_real_data_are_compared_in_the_same_modalities():
    real = {f"inception/fid/real{name}": estimate(value) for name, value in (("", 2), ("/a", 1), ("/b", 3))}
    real["coverage/real/class_3"] = estimate(0.1)
    sets = ("given_rest", "given_rest/a", "given_rest/b", "fixed_order/given_1", "fixed_order/given_1/b")
    metrics = {f"inception/fid/{name}": estimate(9) for name in sets}
    found = [summary.real_counterpart(name, metrics, real) for name in metrics]
    assert [one["value"] for one in found] == [2, 1, 3, 3, 3]
    assert summary.real_counterpart("coverage/class_3", METRICS, real)["value"] == 0.1
    assert summary.real_counterpart("coherence/given_rest", METRICS, real) is None
    del metrics["inception/fid/given_rest/b"]
    metrics["inception/fid/given_rest/c"] = estimate(9)
    assert summary.real_counterpart("inception/fid/given_rest", metrics, real) is None  # of other modalities


def test_every_spread_is_explained():
    assert set(summary.SPREADS) == set(SPREADS)
    repeats = estimate(0.5) | {"spread": "repeats"}
    shown = {"a": [repeats, repeats], "b": [repeats], "c": [estimate(1.0) | {"spread": "standard_error"}]}
    assert summary.spread_notes(shown) == f"± is the {summary.SPREADS['repeats']}; in c the standard error."
    assert not summary.spread_notes({"a": [estimate(1.0, None)]})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,234"),
        (12.34, "12.3"),
        (0.8049, "0.805"),
        (0.00123, "0.0012"),
        (0, "0.000"),
        (None, "not finite"),
    ],
)
def test_number(value, text):
    assert summary.number(value) == text


def test_estimate_text():
    assert summary.estimate_text(estimate(0.8, 0.0123, 1500)) == "0.800 ± 0.012 (1,500)"
    assert summary.estimate_text(estimate(0.8, None)) == "0.800 (100)"
    assert summary.estimate_text(estimate(0.0014, 0.00018)) == "0.0014 ± 0.0002 (100)"
    assert summary.estimate_text(estimate(None, None)) == "not finite (100)"


def test_metrics_are_sorted_by_kind_and_number():
    names = ["coherence/given_10", "frechet/m0", "coherence/given_2", "coherence/given_rest"]
    expected = ["coherence/given_rest", "coherence/given_2", "coherence/given_10", "frechet/m0"]
    assert sorted(names, key=summary.order) == expected
    assert summary.label("coherence/given_2") == "2 given, random sets"
    assert summary.label("frechet/m0") == "frechet/m0"


def test_who_leads_is_said_either_way():
    def one(value, rarest):
        return {summary.LEAD: {"value": value, "std": None, "n": 400}, "coverage/min": {"value": rarest}}

    systems = {"sbm_vae": one(0.5, 0.09), "sbm_vae_m": one(0.6, 0.08), "mopoe": one(0.7, 0.0)}
    assert summary.lead(systems) == (
        "The sbm_ systems do not lead in unconditional coherence (all agree): sbm_vae_m 0.600, mopoe 0.700, difference "
        "-0.100 ± 0.034 (standard error of the samples). The rarest class is 0.000 of what mopoe generates."
    )
    assert "lead in unconditional coherence (all agree): sbm_vae_m 0.600, mopoe 0.200" in summary.lead(
        {**systems, "mopoe": one(0.2, 0.0)}
    )
    assert not summary.lead({"sbm_vae": one(0.5, 0.09)})


def test_terminal_table():
    systems = {
        "sbm_vae": {"metrics": METRICS, "not_available": {}},
        "[bold]mopoe": {"metrics": {}, "not_available": {"coverage": "no classifier", "elbo": f"{NOT_ASKED}: 0"}},
        "mvae": {"metrics": {}, "not_available": {"coverage": "no classifier"}},
    }
    console = Console(file=io.StringIO(), width=120)
    terminal.print_table({"systems": systems}, console)
    printed = console.file.getvalue()
    line = next(line for line in printed.splitlines() if "coherence/given_rest" in line)
    assert "0.800 ± 0.010 (100)" in line
    assert "0.250" in line
    assert "[bold]mopoe, mvae: coverage was not measured: no classifier." in printed
    assert "elbo" not in printed
    assert "coherence/given_1" not in printed


def test_terminal_says_what_the_spread_is():
    systems = {"mopoe": {"metrics": {"coherence/given_1": estimate(0.5) | {"spread": "repeats"}}}}
    console = Console(file=io.StringIO(), width=200)
    terminal.print_table({"systems": systems}, console)
    assert "value ± spread" in console.file.getvalue()
    assert f"± is the {summary.SPREADS['repeats']}." in console.file.getvalue()


def test_many_systems_are_shown_in_tables_that_fit():
    metrics = {"coherence/given_rest": estimate(0.5)}
    systems = {f"system_{i}": {"metrics": metrics} for i in range(7)}
    console = Console(width=120, record=True, file=io.StringIO())
    terminal.print_table({"systems": systems}, console)
    text = console.export_text()
    assert all(name in text for name in systems)
    assert text.count("0.500 ± 0.010") == 7
    assert "…" not in text
