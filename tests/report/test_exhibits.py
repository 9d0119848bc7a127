"""A paper's tables with our numbers: what is there, what is missing, and what differs."""

import re

import numpy as np
import pytest

from sbm_jax.config import plain
from sbm_jax.errors import SbmError
from sbm_jax.experiment_config import parse_config
from sbm_jax.report import choices, exhibits, html, studies
from tests.test_configs import load_config

TEN = range(10)


def estimate(value, std=0.01, n=1000):
    return {"value": value, "std": std, "n": n}


def metrics():
    found = {
        "coherence/given_rest": estimate(0.951),
        "inception/fid/given_rest": estimate(61.2),
        "inception/fid/unconditional": estimate(62.5),
        "sampling/network_evaluations": estimate(20.0, None),
        "sampling/samples_per_second": estimate(512.0),
        "latents/cosine/given_rest": estimate(0.2),
    }
    for m in TEN:
        found[f"coherence/given_rest/m{m}"] = estimate(0.95)
        found[f"inception/fid/given_rest/m{m}"] = estimate(60.0 + m)
        found[f"latents/cosine/given_rest/m{m}"] = estimate(0.2)
    for k in range(1, 10):
        found[f"coherence/fixed_order/given_{k}/last"] = estimate(0.8 + k / 100)
        found[f"coherence/to_target/given_{k}/m0"] = estimate(0.7 + k / 100)
        found[f"inception/fid/fixed_order/given_{k}"] = estimate(70.0 - k)
        found[f"coherence/unconditional_{k + 1}"] = estimate(1 - k / 40)
    return found


def results(**changes):
    return {
        "published": "sbm",
        "systems": {"sbm_vae": {"metrics": metrics()}, "sbm_vae_c": {"metrics": metrics()}},
        "config": {"autoencoder": {"beta": 0.4}, "sampler": {"num_steps": 100}},
        "variations": [
            {
                "study": "beta",
                "value": "0.5",
                "changes": {"autoencoder.beta": 0.5},
                "systems": {"sbm_vae": {"metrics": metrics(), "not_available": {"inception/fid": "too few"}}},
            },
            {"study": "modalities", "value": "4", "changes": {}, "systems": {"sbm_vae": {"metrics": metrics()}}},
        ],
        **changes,
    }


def by_label(**changes):
    return {exhibit.label: exhibit for exhibit in exhibits.exhibits(results(**changes))}


def test_ours_stand_beside_the_published_numbers():
    rows = dict(by_label()["Table 5"].rows)
    ours, paper = rows["SBM-VAE-C"][0]
    assert (ours["value"], paper.value) == (0.951, 0.989)
    assert rows["SBM-VAE"][1].paper.value == 73.29
    assert rows["MoPoE"][0].ours is None
    assert rows["MoPoE"][0].paper.value == 0.982
    cells = dict(by_label()["Figure 5"].rows)["sbm_vae"]
    assert [(cell.ours["value"], cell.paper.value) for cell in cells] == [(1 - 9 / 40, 0.71), (1 - 8 / 40, 0.925)]
    ((_, beta),) = by_label()["Table 6"].rows
    assert [cell.paper.value for cell in beta] == [0.780, 102.85]
    cosines = dict(by_label()["Table 7"].rows)
    assert len(cosines) == 11
    assert cosines["mean"][-1].paper.value == 0.164
    assert cosines["mean"][0].ours["value"] == 0.2


def test_figures_are_drawn_and_missing_ones_are_listed():
    found = by_label()
    for label in ("Figure 6", "Figure 7a", "Figure 7b", "Figure 8", "Figure 9", "Figure 13", "Figure 27"):
        assert found[label].chart is not None, label
        assert not found[label].missing
    for label in ("Figure 11", "Figure 12", "Figure 21", "Figure 22"):
        assert found[label].missing, label
    assert found["Figure 12"].missing == "not measured in this run"
    assert found["Figure 11"].missing == "the study 'steps' is not part of this run"
    waiting = by_label(to_come=[{"study": "steps"}])
    assert waiting["Figure 11"].missing == "still to come in this run"
    assert waiting["Figure 21"].missing == "the study 'fine-tuning' is not part of this run"
    assert found["Table 5"].missing.startswith("not part of this run: MVAE,")
    assert "SBM-VAE," not in found["Table 5"].missing


def test_what_lacks_a_part_says_so():
    systems = results()["systems"]
    for system in systems.values():
        system["metrics"] = {name: m for name, m in system["metrics"].items() if not name.startswith("inception")}
        system["not_available"] = {"inception/fid": "no weights"}
    found = by_label(systems=systems)
    assert found["Table 5"].rows
    assert found["Table 5"].missing.startswith("FID: no weights; not part of this run: ")
    assert found["Figure 8"].missing == "no weights"
    assert found["Figure 20"].missing


def test_each_missing_figure_has_its_own_reason():
    systems = results()["systems"]
    for system in systems.values():
        system["metrics"] = {"coherence/given_rest": estimate(0.9)}
        system["not_available"] = {
            "inception/fid/unconditional": "first",
            "inception/fid/fixed_order": "second",
            "inception/fid_infinity": "third",
            "coherence/to_target/given_k": "fourth",
        }
    found = by_label(systems=systems)
    assert found["Figure 8"].missing == "second"
    assert found["Figure 12"].missing == "not measured in this run"
    assert found["Figure 13"].missing == "fourth"


def _figures(num_examples=2):
    """The sample grids of a system with seven modalities."""
    names = [f"m{i}" for i in range(7)]
    pixels = np.random.default_rng(0).random((num_examples, 4, 8, 8, 3))
    data = {"given_rest": pixels, "unconditional": np.repeat(pixels[:1], 4, axis=1)}
    grids = {f"samples/{grid}/data/{name}": cells for grid, cells in data.items() for name in names}
    return grids | {f"samples/{grid}/observed": np.zeros((*cells.shape[:2], 7), bool) for grid, cells in data.items()}


def test_samples_of_all_systems_stand_side_by_side():
    figures = {"sbm_vae": _figures(), "sbm_vae_c": _figures()}
    found = {exhibit.label: exhibit for exhibit in exhibits.exhibits(results(), figures)}
    for label in ("Figure 23", "Figure 24", "Figure 25"):
        (panel,) = found[label].panels
        assert panel.lines == ("true", "sbm_vae", "sbm_vae_c")
        assert panel.shape == (3, 2)
    panels = found["Figure 26"].panels
    assert len(panels) == 4
    assert panels[0].lines == ("sbm_vae", "sbm_vae_c")
    assert panels[0].columns == tuple(f"m{i}" for i in range(7))
    assert not found["Figure 26"].missing
    assert by_label()["Figure 26"].missing == "not measured in this run"
    assert html.render(results(), figures, {}).count("Figure 26: Joint samples") == 1


def test_the_experiment_of_eb_mvae_has_its_figures():
    found = {f"coherence/to_target/given_{k}/{name}": estimate(0.5 + k / 10) for k in (1, 2) for name in ("m2", "m4")}
    found |= {"inception/fid/to_target/given_1/m4": estimate(90.0)}
    systems = {"eb_mvae": {"metrics": found}}
    config = plain(parse_config(load_config("polymnist.py:eb_mvae")))
    run = results(published="eb_mvae", systems=systems, variations=[], config=config)
    shown = exhibits.exhibits(run, {"eb_mvae": _figures()})
    charts = [(exhibit.label, exhibit.title, exhibit.chart is not None) for exhibit in shown if not exhibit.panels]
    assert charts == [
        ("Figure 2a", "coherence of the fifth modality against observed ones", True),
        ("Figure 2a", "FID of the fifth modality against observed ones", True),
        ("Figure 2b", "coherence of the third modality against observed ones", True),
        ("Figure 2b", "FID of the third modality against observed ones", False),
    ]
    assert [exhibit.label for exhibit in shown if exhibit.panels] == ["Figure 1", "Figure 3"]
    differing = {field for field, _, _ in choices.differences(run) if "." in field}
    assert differing == {"data.polymnist.backgrounds", "methods.eb_mvae.trace"}
    assert "Energy-Based Multimodal VAEs" in html.render(run, {}, {})


def test_differences_from_the_paper_are_named():
    rows = {field: (ours, theirs) for field, ours, theirs in choices.differences(results())}
    assert rows["autoencoder.beta"] == ("0.4", "0.1")
    assert "sampler.num_steps" not in rows
    assert "size of images for FID" in rows


def test_a_run_with_the_papers_choices_differs_only_in_what_can_not_be_the_same():
    config = plain(parse_config(load_config("polymnist.py:paper")))
    rows = {field for field, _, _ in choices.differences(results(config=config))}
    assert {field for field in rows if "." in field} == {
        "data.polymnist.backgrounds",
        "autoencoder.training.num_steps",  # of RAE
        "autoencoder.training.optimizer.schedule",
    }


def test_studies_stand_beside_the_main_run():
    ((study, columns, lines), _) = studies.tables_of_studies(results())
    assert study == "beta"
    assert [name for name, _ in lines] == ["this run: sbm_vae", "this run: sbm_vae_c", "0.5: sbm_vae"]
    assert dict(zip(columns, lines[0][1], strict=True))["coherence/given_rest"]["value"] == 0.951


def _of(value, **changes):
    found = {"sbm_vae": {"metrics": metrics(), "not_available": {}}}
    return {"study": "steps", "value": value, "changes": {"evaluation.num_repeats": 1, **changes}, "systems": found}


def test_a_study_of_one_number_has_curves_with_the_main_run_on_them(monkeypatch):
    drawn = []

    def lines(series, *labels):
        drawn.append((series, labels))
        return "chart" if series else None

    monkeypatch.setattr(studies.charts, "lines", lines)
    steps = [_of(str(n), **{"sampler.num_steps": n}) for n in (200, 50)]
    found = studies.curves_of_studies(results(variations=steps))
    assert [metric for metric, _ in found["steps"]] == [name for name in studies.CURVES if name in metrics()]
    series, labels = drawn[0]
    assert [x for x, _, _ in series["sbm_vae"]] == [50, 100, 200]
    assert labels == ("sampler.num_steps", "coherence/given_rest")
    assert list(series) == ["sbm_vae"]


@pytest.mark.parametrize(
    "changes",
    [
        [{"sampler.solver": "ddim"}, {"sampler.solver": "heun"}],
        [{"sampler.num_steps": 5}],
        [{"sampler.num_steps": 5, "seed": 1}, {"sampler.num_steps": 6, "seed": 2}],
        [{"other.number": 1}, {"other.number": 2}],
    ],
    ids=["words", "one value", "two numbers", "not in the config"],
)
def test_other_studies_have_none(changes):
    variations = [_of(str(i), **change) for i, change in enumerate(changes)]
    assert studies.curves_of_studies(results(variations=variations)) == {"steps": []}


def test_which_modalities_are_judged_is_said():
    config = {"evaluation": {"metrics": {"frechet": {"modalities": ["m4"]}}}}
    assert by_label(config=config)["Table 5"].note == "Ours is the FID of m4 only."
    assert not by_label()["Table 5"].note


def test_the_page_shows_them():
    page = html.render(results(to_come=[{"study": "steps", "value": "5"}]), {}, {})
    text = " ".join(re.sub("<[^>]*>", " ", page).split())
    assert "Table 5" in text
    assert "paper 0.989 ± 0.001" in text
    assert "paper 139.47" in text
    assert "NCSN" not in text  # that figure is missing
    assert "Missing here" in text
    assert "steps = 5" in text
    assert "0.5: autoencoder.beta = 0.5" in text
    assert "beta = 0.5: sbm_vae" in text
    assert "too few" in text


def test_without_a_paper_there_is_nothing():
    assert exhibits.exhibits(results(published="")) == []
    assert choices.differences(results(published="")) == []
    with pytest.raises(SbmError, match="unknown paper"):
        choices.paper_of("another")


def test_table_8_has_each_direction_beside_the_papers():
    def made(**more):
        return {"coherence/unconditional_2": estimate(0.7), **more}

    directions = {"coherence/from/sound/to/image": estimate(0.9), "coherence/from/image/to/sound": estimate(0.8)}
    rest = {"coherence/given_rest/sound": estimate(0.6), "coherence/given_rest/image": estimate(0.5)}
    three = {"coherence/unconditional_3": estimate(0.2)}
    systems = {"sbm_vae": made(**directions, **rest), "sbm_vae_m": made(**rest), "mopoe": made(**rest, **three)}
    named = {name: {"metrics": metrics, "not_available": {}} for name, metrics in systems.items()}
    (table,) = exhibits.exhibits({"published": "sbm_mhd", "systems": named, "config": {}})
    values = {name: [cell.ours and cell.ours["value"] for cell in cells] for name, cells in table.rows}
    assert values["SBM-VAE"] == [0.9, 0.8, 0.7]
    assert values["sbm_vae_m"] == [0.5, 0.6, 0.7]  # of two modalities, each is given the rest
    assert values["mopoe"] == [None, None, 0.7]
    published = {name: [cell.paper and cell.paper.value for cell in cells] for name, cells in table.rows}
    assert published["SBM-VAE"] == [0.853, 0.861, 0.839]
    assert published["MMVAE+"] == [0.451, 0.442, 0.248]
    assert published["sbm_vae_m"] == [None, None, None]
    assert table.missing == "not part of this run: MVTCAE, MMVAE+"
    assert "two modalities or more agree" in table.note


def test_choices_of_the_config_for_mhd_are_the_papers():
    found = {
        row[0]
        for row in choices.differences({"published": "sbm_mhd", "config": plain(parse_config(load_config("mhd.py")))})
    }
    assert "score.network.name" in found
    assert not {name for name in found if name.startswith(("modalities.", "autoencoder.", "data."))}
    other = {
        row[0]
        for row in choices.differences(
            {"published": "sbm_mhd", "config": plain(parse_config(load_config("digits.py")))}
        )
    }
    assert {"data.name", "modalities.0.codec.name", "autoencoder.training.num_steps"} <= other


def test_the_experiment_of_diff_mvae_has_its_figure_and_table():
    fid = {"inception/fid/unconditional": estimate(60.0), "inception/fid/fixed_order/given_1": estimate(50.0)}
    shown = {"coherence/fixed_order/given_1/last": estimate(0.9)}
    systems = {name: {**fid, **shown} for name in ("diff_mvae", "mopoe_star", "mopoe_star_score")}
    named = {name: {"metrics": metrics, "not_available": {}} for name, metrics in systems.items()}
    of_two = {"mopoe_star": {"metrics": {**fid, "coherence/unconditional_all": estimate(0.7)}, "not_available": {}}}
    variations = [{"study": "modalities", "value": "2", "systems": of_two}]
    results = {"published": "diff_mvae", "systems": named, "variations": variations, "config": {}}
    found = {exhibit.label: exhibit for exhibit in exhibits.exhibits(results)}
    figures = ["Figure 7a", exhibits.ALL_AGREE, "Figure 7b", "Figure 7c"]
    assert list(found) == [*figures, "Table 4", "Samples"]
    assert all(found[label].chart for label in figures)
    ((name, cells),) = found["Table 4"].rows
    assert name == "mopoe_star"
    assert [(cell.ours["value"], cell.paper.value) for cell in cells] == [(60.0, 139.8), (60.0, 95.2)]
