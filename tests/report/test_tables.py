"""The tables whose columns are metrics beside the papers'."""

import numpy as np
import pytest

from sbm_jax.config import plain
from sbm_jax.experiment_config import parse_config
from sbm_jax.report import choices, exhibits
from sbm_jax.report.published import PAPERS
from sbm_jax.report.tables import TABLES
from tests.report.test_exhibits import estimate
from tests.test_configs import load_config

F1 = {
    "attributes_f1_given_rest/f1/given_rest/attributes": estimate(0.6),
    "attributes_f1_given_image/f1/given_image/attributes": estimate(0.5),
    "f1/given_image/mask": estimate(0.8),
    "inception/fid/from/mask/image": estimate(70.0),
    "inception/fid/unconditional/image": estimate(80.0),
}
ATTACKED = {
    "robustness/given_image/attributes/f1": estimate(0.5),
    "robustness/given_image/attributes/f1/attack_0.05": estimate(0.4),
    "robustness/given_image/attributes/drop/attack_0.05": estimate(0.2),
}


def made(published, systems, variations=()):
    named = {name: {"metrics": metrics, "not_available": {}} for name, metrics in systems.items()}
    results = {"published": published, "systems": named, "config": {}, "variations": list(variations)}
    return {exhibit.label: exhibit for exhibit in exhibits.exhibits(results)}


def cells(exhibit, row, which):
    found = dict(exhibit.rows)[row]
    if which == "ours":
        return [cell.ours and cell.ours["value"] for cell in found]
    return [cell.paper and cell.paper.value for cell in found]


@pytest.mark.parametrize("name", TABLES)
def test_published_rows_have_a_number_or_none_for_each_column(name):
    for label, (_, columns) in TABLES[name].items():
        for row in PAPERS[name].tables[label].values():
            assert len(row) == len(columns)


def test_numbers_are_found_under_any_entry_of_the_config():
    tables = made("sbm_celebamask_hq", {"sbm_vae": {**F1, **ATTACKED}, "sbm_vae_m": F1})
    assert cells(tables["Table 1"], "sbm_vae", "ours") == [0.6, 0.5, None, 70.0, None, None, 0.8]
    assert cells(tables["Table 1"], "sbm_vae", "paper") == [0.62, 0.58, 81.6, 81.9, 78.7, 0.83, 0.83]
    assert cells(tables["Table 1"], "sbm_vae_m", "paper") == [None] * 7
    assert cells(tables["Table 1"], "supervised", "paper") == [None, 0.79, None, None, None, None, 0.94]
    assert "mopoe" in tables["Table 1"].missing
    assert cells(tables["Table 2"], "sbm_vae", "ours") == [80.0]
    assert cells(tables["Table 3"], "sbm_vae", "ours") == [0.4, 0.2]
    assert cells(tables["Table 3"], "sbm_vae_c", "paper") == [0.634, 0.039]
    series = tables["Attacks"].chart
    assert series is not None
    assert not dict(tables["Table 11"].rows).get("sbm_vae_m")


def test_table_11_is_of_the_variation_with_missing_modalities():
    one = {"study": "missing", "value": "0.2", "changes": {}, "systems": {"mopoe": {"metrics": F1}}}
    other = {"study": "missing", "value": "complete rows only", "changes": {}, "systems": {"mopoe": {"metrics": {}}}}
    table = made("sbm_celebamask_hq", {"mopoe": {}}, [other, one])["Table 11"]
    assert cells(table, "mopoe", "ours") == [None, 0.6, None]
    assert cells(table, "mvtcae", "paper") == [0.895, 0.695, 99.49]


def test_the_table_of_diff_mvae_has_images_from_nothing_too():
    systems = {"diff_mvae": F1, "mopoe_star": {"inception/fid/unconditional": estimate(90.0)}}
    tables = made("diff_mvae_celebamask_hq", systems)
    assert cells(tables["Table 3"], "diff_mvae", "ours") == [0.6, 0.5, None, 70.0, None, 80.0, None, 0.8]
    assert cells(tables["Table 3"], "diff_mvae_star", "paper") == [0.76, 0.76, 28.3, 28.5, 32.3, 28.4, 0.90, 0.90]
    assert "score model as prior" in tables["Table 3"].note
    systems["diff_mvae_score"] = {"inception/fid/unconditional/image": estimate(40.0)}
    prior = made("diff_mvae_celebamask_hq", systems)["Table 3"]
    assert cells(prior, "diff_mvae", "ours") == [0.6, 0.5, None, 70.0, None, 40.0, None, 0.8]
    assert cells(tables["Table 4"], "mopoe_star", "ours") == [90.0, None]
    assert cells(tables["Table 4"], "mopoe_star", "paper") == [139.8, 95.2]


def test_choices_of_the_papers_variant_are_the_papers():
    config = plain(parse_config(load_config("celebamask_hq.py:paper,table")))
    found = {row[0] for row in choices.differences({"published": "sbm_celebamask_hq", "config": config})}
    assert not {name for name in found if name.startswith(("modalities.", "data.", "score.", "sampler.", "methods."))}
    ours = plain(parse_config(load_config("celebamask_hq.py")))
    other = {row[0] for row in choices.differences({"published": "sbm_celebamask_hq", "config": ours})}
    assert {"score.network.name", "autoencoder.alignment", "sampler.num_steps"} <= other


def test_figures_show_what_each_system_makes_of_one_modality():
    """Cells hold the number of their line: 0 where the image is given, 1 where the attributes are."""
    lines = np.arange(2, dtype=np.float32)
    grid = {
        "samples/given_one/data/image": np.broadcast_to(lines[None, :, None, None, None], (3, 2, 4, 4, 3)),
        "samples/given_one/data/attributes": np.array([["image given", "attributes given"]] * 3),
        "samples/given_one/observed": np.broadcast_to(np.eye(2, dtype=bool), (3, 2, 2)),
    }
    systems = {name: {"metrics": {}, "not_available": {}} for name in ("sbm_vae", "mopoe")}
    results = {"published": "sbm_celebamask_hq", "systems": systems, "config": {}, "variations": []}
    shown = {exhibit.label: exhibit for exhibit in exhibits.exhibits(results, dict.fromkeys(systems, grid))}
    for label, given in {"Figure 34": "image", "Figures 36 and 37": "attributes"}.items():
        panels = shown[label].panels
        assert len(panels) == 3
        for line, system in zip(panels[0].table, systems, strict=True):
            assert line.heading == system
            assert [(cell.text, cell.given) for cell in line.cells] == [(f"{given} given", given == "attributes")]
    assert not shown["Figure 35"].panels


def test_tables_of_birds_are_beside_the_papers():
    fid = {"inception/fid/given_rest/image": estimate(50.0), "inception/fid/unconditional/image": estimate(60.0)}
    score = {"clip_score/given_caption/image": estimate(25.0)}
    tables = made("diff_mvae_cub", {"diff_mvae": fid, "sbm_vae_m": fid | score})
    assert cells(tables["Table 1"], "diff_mvae", "ours") == [50.0, 60.0]
    assert cells(tables["Table 1"], "sbm_vae_m", "paper") == [None, None]
    assert cells(tables["Table 1"], "mmvae_plus", "paper") == [164.9, None]
    assert cells(tables["Table 2"], "mopoe", "paper") == [26.8, 22.0, 24.8]
    assert cells(tables["Table 2"], "sbm_vae_m", "ours") == [None, 25.0, None]


@pytest.mark.parametrize(
    ("published", "name"),
    [
        ("sbm_celebamask_hq", "celebamask_hq.py:paper,table"),
        ("diff_mvae_celebamask_hq", "celebamask_hq.py:diffusion"),
        ("diff_mvae_cub", "cub.py"),
    ],
)
def test_choices_of_papers_are_of_fields_that_there_are(published, name):
    config = plain(parse_config(load_config(name)))
    for path in PAPERS[published].settings:
        value = config
        for part in path.split("."):
            value = value[int(part) if part.isdigit() else part]
