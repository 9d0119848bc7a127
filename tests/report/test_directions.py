"""The table of directions shows each number where it belongs, by question and system."""

import io

from rich.console import Console

from sbm_jax.report import html, summary
from sbm_jax.report.directions import directions
from sbm_jax.report.terminal import print_table

NAMES = ("image", "log.mel +", "tags 2")


def one(value, n=300):
    return {"value": value, "std": None, "n": n}


def metrics_of(prefix="", shift=0.0):
    """Numbers that tell where they belong: 0.<given><target>."""
    found = {f"coverage/{prefix}class_{k}": one(0.25) for k in range(4)}
    for g, given in enumerate(NAMES):
        for t, target in enumerate(NAMES):
            if given != target:
                found[f"coherence/{prefix}from/{given}/to/{target}"] = one(round(0.1 * g + 0.01 * t + shift, 3))
        found[f"classifier/{prefix}reconstruction/{given}"] = one(0.9 + 0.01 * g)
        found[f"classifier/{prefix}accuracy/{given}"] = one(0.95 + 0.01 * g)
    return found


def test_numbers_are_where_they_belong():
    both = {**metrics_of(), **metrics_of("colour/", 0.5)}
    tables = list(directions({"sbm_vae": both, "mopoe": metrics_of(shift=0.2), "mvae": {}}))
    assert [(table.system, table.question) for table in tables] == [
        ("sbm_vae", ""),
        ("mopoe", ""),
        ("sbm_vae", "colour"),
    ]
    assert {table.names for table in tables} == {NAMES}
    values = [[round(cell["value"], 3) for cell in line] for line in tables[0].cells]
    assert values == [[0.9, 0.01, 0.02], [0.1, 0.91, 0.12], [0.2, 0.21, 0.92]]
    assert tables[2].cells[1][2]["value"] == 0.62
    assert [cell["value"] for cell in tables[0].real] == [0.95, 0.96, 0.97]


def test_what_was_not_measured_is_left_open():
    found = {name: value for name, value in metrics_of().items() if not name.startswith("classifier/")}
    (table,) = directions({"sbm_vae": found})
    assert table.cells[0][0] is None
    assert not table.has_real
    assert not list(directions({"sbm_vae": {"coherence/given_rest": one(1.0)}}))


def test_they_are_printed_and_shown():
    results = {"systems": {"sbm_vae": {"metrics": metrics_of()}, "[b]x": {"metrics": metrics_of(shift=0.5)}}}
    console = Console(file=io.StringIO(), width=120)
    print_table(results, console)
    lines = console.file.getvalue().splitlines()
    (line,) = [line for line in lines if "sbm_vae" in line and "image" in line and "log" not in line]
    assert [part.strip() for part in line.strip("│ ").split("│")] == ["sbm_vae", "image", "(0.90)", "0.01", "0.02"]
    assert any("[b]x" in line for line in lines)
    assert any("real data" in line and "0.97" in line for line in lines)
    page = html.render(results, {}, {})
    assert page.count('class="num own"') == 6
    assert 'href="#directions"' in page
    assert "from/image/to/log.mel +" in page
    assert "directions" not in html.render({"systems": {"sbm_vae": {"metrics": {}}}}, {}, {}).split("</style>")[1]


def test_what_is_too_wide_is_cut_between_columns():
    names = tuple(f"modality {k}" for k in range(9))
    found = {f"coherence/from/{g}/to/{t}": one(0.123) for g in names for t in names if g != t}
    console = Console(file=io.StringIO(), width=80)
    print_table({"systems": {"sbm_vae_m": {"metrics": found}}}, console)
    printed = console.file.getvalue()
    assert printed.count("Coherence given one modality") > 1
    assert printed.count("0.12") == 9 * 8  # whole, each once
    assert max(map(len, printed.splitlines())) <= 80
    heads = [line for line in printed.splitlines() if "given" in line and "┃" in line]
    assert [name for line in heads for name in names if name in line] == list(names)


def test_chance_and_names():
    metrics = {**metrics_of(), **{f"coverage/colour/class_{k}": one(0.5) for k in range(2)}}
    assert summary.chance("coherence/from/image/to/tags 2", metrics) == 1 / 4
    assert summary.chance("coherence/colour/from/image/to/tags 2", metrics) == 1 / 2
    assert summary.label("coherence/from/image/to/log.mel +") == "log.mel + given image"
