"""The tables of attributes show each number where it belongs; the terminal has their means only."""

import io
import re

from rich.console import Console

from sbm_jax.report import html, summary
from sbm_jax.report.attributes import MEAN, attribute_tables
from sbm_jax.report.terminal import print_table

MEASURES = ("f1", "balanced_accuracy", "base_rate")
WORDS = ("Bald", "Wearing Hat", "<b>")


def one(value, n=300):
    return {"value": value, "std": None, "n": n}


def metrics_of(given="image", prefix="", shift=0.0):
    """Numbers that tell where they belong."""
    found = {}
    for m, measure in enumerate(MEASURES):
        name = f"{prefix}per_attribute/{measure}/given_{given}/attributes"
        found[name] = one(round(0.1 * m + 0.09 + shift, 3))
        found |= {f"{name}/{word}": one(round(0.1 * m + 0.01 * w + shift, 3)) for w, word in enumerate(WORDS)}
    return found


def values(line):
    return [None if cell is None else cell["value"] for cell in (line.base_rate, *line.cells)]


def test_numbers_are_where_they_belong():
    ours = {**metrics_of(), **metrics_of("rest", "all/", 0.5), "f1/given_image/attributes": one(1.0)}
    tables = list(attribute_tables({"sbm_vae": ours, "mvae": {}, "mopoe": metrics_of(shift=0.3)}))
    assert [table.title for table in tables] == ["attributes given image", "attributes given the rest (all)"]
    assert [table.systems for table in tables] == [("sbm_vae", "mopoe"), ("sbm_vae",)]
    assert [line.name for line in tables[0].lines] == [*WORDS, MEAN]
    assert values(tables[0].lines[1]) == [0.21, 0.01, 0.11, 0.31, 0.41]
    assert values(tables[0].lines[-1]) == [0.29, 0.09, 0.19, 0.39, 0.49]
    assert values(tables[1].lines[0]) == [0.7, 0.5, 0.6]
    assert not list(attribute_tables({"sbm_vae": {"f1/given_image/attributes": one(1.0)}}))


def test_the_page_has_a_table_of_attributes():
    results = {"systems": {"sbm_vae": {"metrics": metrics_of()}, "mopoe": {"metrics": metrics_of(shift=0.3)}}}
    page = html.render(results, {}, {})
    (section,) = [part for part in page.split("<section") if part.startswith(' id="attributes"')]
    lines = [line for line in section.split("<tr>") if "Wearing Hat" in line]
    assert len(lines) == 1
    found = re.findall(r"0\.\d{3}", re.sub(r'="[^"]*"', "", lines[0]))
    assert found == ["0.210", "0.010", "0.110", "0.310", "0.410"]
    assert "&lt;b&gt;" in section
    assert "<b>" not in section
    assert 'href="#attributes"' in page
    assert 'id="attributes"' not in html.render({"systems": {"sbm_vae": {"metrics": {}}}}, {}, {})


def test_the_terminal_shows_means_only():
    console = Console(file=io.StringIO(), width=160)
    print_table({"systems": {"sbm_vae": {"metrics": metrics_of() | {"x/iou/given_rest/mask": one(0.7)}}}}, console)
    lines = [line for line in console.file.getvalue().splitlines() if "given_" in line]
    assert [line.split()[1] for line in lines] == [
        "per_attribute/f1/given_image/attributes",
        "per_attribute/balanced_accuracy/given_image/attributes",
        "x/iou/given_rest/mask",
    ]
    assert "0.500" in lines[1]  # by chance


def test_entries_of_a_metric_are_named_and_sorted_like_others():
    assert summary.entry("f1 of tags/f1/given_rest/tags") == ("f1 of tags", "f1/given_rest/tags")
    assert summary.entry("reconstruction/mse/a") == ("", "reconstruction/mse/a")
    assert summary.entry("brightness/photo") == ("", "brightness/photo")
    assert summary.label("both/f1/given_image+mask/tags") == "F1 of tags given image+mask (both)"
    assert summary.label("iou/given_rest/mask") == "intersection over union of mask given rest"
    assert summary.label("x/per_attribute/f1/given_image/tags") == "F1 of tags given image, macro average (x)"
    names = ["a/f1/given_image/tags", "iou/given_rest/mask", "b/f1/given_mask/tags"]
    ((title, _, rows),) = html.sections({"s": dict.fromkeys(names, one(0.5)) | metrics_of()}, {})
    assert title == "Samples beside the truth"
    means = [f"per_attribute/{measure}/given_image/attributes" for measure in MEASURES]  # single ones are elsewhere
    assert [row.metric for row in rows] == [names[0], names[2], names[1], *means]


def test_long_names_give_way_to_numbers_on_a_narrow_terminal():
    console = Console(file=io.StringIO(), width=80)
    print_table({"systems": {name: {"metrics": metrics_of("image+mask", "from both/")} for name in "ab"}}, console)
    printed = console.file.getvalue()
    assert printed.count("0.090 (300)") == printed.count("0.190 (300)") == 2
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 80
