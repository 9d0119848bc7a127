"""What is printed can be printed anywhere."""

import io

import pytest
from rich.console import Console

from sbm_jax import progress
from sbm_jax.report.terminal import print_table, shown

RESULTS = {
    "systems": {
        "sbm_vae": {
            "metrics": {"coherence/given_rest": {"value": 0.5, "std": 0.01, "n": 30}},
            "not_available": {"inception/fid": "of µ and Σ there is too little"},
        }
    }
}


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "koi8-r", "latin-1", "cp1252"])
def test_the_table_can_be_printed_in_any_encoding(encoding):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_table(RESULTS, Console(file=file, width=120))
    file.flush()
    text = file.buffer.getvalue().decode(encoding)
    sign = "+-" if encoding in ("ascii", "koi8-r") else "±"
    assert f"0.500 {sign} 0.010 (30)" in text


def test_metrics_of_ones_own_are_in_the_table(capsys):
    own = {"mine/brightness/photo": {"value": 0.25, "std": None, "n": 7}}
    system = RESULTS["systems"]["sbm_vae"]
    print_table({"systems": {"sbm_vae": {**system, "metrics": system["metrics"] | own}}})
    line = next(line for line in capsys.readouterr().out.splitlines() if "mine/brightness/photo" in line)
    assert "0.250 (7)" in line


def test_what_an_encoding_lacks_is_replaced():
    assert shown("µ ± Σ", "ascii") == "? +- ?"
    assert shown("µ ± Σ", "utf-8") == "µ ± Σ"


def test_progress_on_a_terminal_that_draws_nothing_is_told_in_lines(monkeypatch, capsys):
    monkeypatch.setattr(progress, "Console", lambda: Console(force_terminal=True, _environ={"TERM": "dumb"}))
    with progress.progress_bar("stage", 3) as advance:
        advance(3)
    assert "stage: done, 3 steps" in capsys.readouterr().out
