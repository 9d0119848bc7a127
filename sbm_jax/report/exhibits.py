"""A paper's tables and figures with our numbers beside the published ones, and what is missing."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sbm_jax.report import figures as charts
from sbm_jax.report import images, summary, tables
from sbm_jax.report.choices import judged_modalities, paper_of
from sbm_jax.report.exhibit import Cell, Exhibit
from sbm_jax.report.image_and_sound import image_and_sound
from sbm_jax.report.paper import Paper, Published
from sbm_jax.report.studies import Study, chart_over, studies

Figures = Mapping[str, Mapping[str, np.ndarray]]  # {system: {name: array}}


def exhibits(results: Mapping[str, Any], figures: Figures | None = None) -> list[Exhibit]:
    """Return the exhibits of the paper that the results name, with our numbers.

    Args:
      results: the content of ``results.json``.
      figures: {system: {name: array}}, with the sample grids of `evaluation.sample_grids`.
    """
    paper = paper_of(results.get("published"))
    if paper is None:
        return []
    systems = {name: system["metrics"] for name, system in results["systems"].items()}
    make = {
        "sbm": _of_sbm,
        "eb_mvae": _of_eb_mvae,
        "sbm_mhd": _of_sbm_mhd,
        "diff_mvae": _of_diff_mvae,
        "sbm_celebamask_hq": _of_sbm_faces,
        "diff_mvae_celebamask_hq": _of_diff_mvae_faces,
        "diff_mvae_cub": _of_diff_mvae_birds,
        "sbm_video_audio": _of_sbm_video,
    }[results["published"]]
    return [_with_reason(exhibit, results) for exhibit in make(paper, results, systems, figures or {})]


def _of_sbm(
    paper: Paper, results: Mapping[str, Any], systems: Mapping[str, summary.Metrics], figures: Figures
) -> list[Exhibit]:
    by_study = {study.name: study for study in studies(results)}
    return [
        _conditional(paper, systems, judged_modalities(results)),
        _unconditional(paper, systems),
        *_against_trained(systems, by_study.get("modalities")),
        *_against_observed(systems),
        *_per_modality(systems),
        _steps(by_study.get("steps")),
        _beta(paper, by_study.get("beta")),
        _cosine(paper, systems),
        _class_shares(systems),
        _classifier(paper, systems),
        *_beta_of_baselines(by_study),
        *_finetuning(systems, by_study.get("fine-tuning")),
        *_samples_given_rest({"Figure 23": "m2", "Figure 24": "m0", "Figure 25": "m5"}, figures),
        _unconditional_samples("Figure 26", figures),
    ]


def _of_eb_mvae(
    paper: Paper, results: Mapping[str, Any], systems: Mapping[str, summary.Metrics], figures: Figures
) -> list[Exhibit]:
    del paper, results
    what = (("a", "m4", "fifth"), ("b", "m2", "third"))
    coherence, fid = "coherence/to_target/given_{}", "inception/fid/to_target/given_{}"
    found = [_unconditional_samples("Figure 1", figures)]
    for part, name, nth in what:
        for pattern, unit in ((f"{coherence}/{name}", "coherence"), (f"{fid}/{name}", "FID")):
            title = f"{unit} of the {nth} modality against observed ones"
            chart = _by_observed(systems, pattern, unit)
            found.append(Exhibit(f"Figure 2{part}", title, chart=chart, metric=pattern.format("k")))
    return [*found, *_samples_given_rest({"Figure 3": "m2"}, figures)]


def _of_sbm_mhd(
    paper: Paper, results: Mapping[str, Any], systems: Mapping[str, summary.Metrics], figures: Figures
) -> list[Exhibit]:
    del results, figures
    return [image_and_sound(paper, systems)]


def _of_sbm_video(
    paper: Paper, results: Mapping[str, Any], systems: Mapping[str, summary.Metrics], figures: Figures
) -> list[Exhibit]:
    del results
    return [*tables.tables("sbm_video_audio", paper, systems), _unconditional_samples("Figures 28 to 31", figures)]


def _of_diff_mvae(
    paper: Paper, results: Mapping[str, Any], systems: Mapping[str, summary.Metrics], figures: Figures
) -> list[Exhibit]:
    trained = {study.name: study for study in studies(results)}.get("modalities")
    against = [exhibit for exhibit in _against_trained(systems, trained) if exhibit.label in ("Figure 6", ALL_AGREE)]
    observed = {exhibit.label: exhibit for exhibit in _against_observed(systems)}
    named = {"Figure 7b": observed["Figure 8"], "Figure 7c": observed["Figure 9"]}
    return [
        *(exhibit._replace(label="Figure 7a") if exhibit.label == "Figure 6" else exhibit for exhibit in against),
        *(exhibit._replace(label=label) for label, exhibit in named.items()),
        _priors(paper, systems)._replace(note="The paper's numbers are for MoPoE* on CelebAMask-HQ."),
        _unconditional_samples("Samples", figures),
    ]


def _of_sbm_faces(
    paper: Paper, results: Mapping[str, Any], systems: Mapping[str, summary.Metrics], figures: Figures
) -> list[Exhibit]:
    by_study = {study.name: study for study in studies(results)}
    return [
        *tables.tables("sbm_celebamask_hq", paper, systems),
        tables.attacks(systems),
        tables.with_missing(paper, by_study.get("missing")),
        _unconditional_samples("Figures 10 and 33", figures),
        *_samples_given_one({"Figure 34": "image", "Figure 35": "mask", "Figures 36 and 37": "attributes"}, figures),
        *_samples_given_rest({"Images": "image"}, figures),
    ]


def _of_diff_mvae_faces(
    paper: Paper, results: Mapping[str, Any], systems: Mapping[str, summary.Metrics], figures: Figures
) -> list[Exhibit]:
    del results
    return [
        *tables.tables("diff_mvae_celebamask_hq", paper, systems),
        _priors(paper, systems),
        *_samples_given_rest({"Figure 5": "image"}, figures),
        _unconditional_samples("Figure 8", figures),
    ]


def _of_diff_mvae_birds(
    paper: Paper, results: Mapping[str, Any], systems: Mapping[str, summary.Metrics], figures: Figures
) -> list[Exhibit]:
    del results
    return [
        *tables.tables("diff_mvae_cub", paper, systems),
        *_samples_given_one({"Figure 3": "caption", "Captions": "image"}, figures),
        _unconditional_samples("Figure 4", figures),
    ]


def _priors(paper: Paper, systems: Mapping[str, summary.Metrics]) -> Exhibit:
    """Return Table 4 of Diff-MVAE: the effect of a score model as prior on unconditional samples."""
    rows = []
    for name in {**paper.priors, **{one.removesuffix("_score"): None for one in systems if one.endswith("_score")}}:
        ours = (systems.get(one, {}).get("inception/fid/unconditional") for one in (name, f"{name}_score"))
        rows.append((name, tuple(map(Cell, ours, paper.priors.get(name, (None, None))))))
    return Exhibit(
        "Table 4",
        "FID from nothing, by the prior",
        ("Gaussian prior", "score prior"),
        tuple(rows),
        metric="inception/fid/unconditional",
    )


# MARK: Exhibits

PAPER_COLUMN = "paper"
"""The heading of a column with only the paper's numbers."""


def _conditional(paper: Paper, systems: Mapping[str, summary.Metrics], judged: Sequence[str]) -> Exhibit:
    rows = []
    measured = any("inception/fid/given_rest" in metrics for metrics in systems.values())
    absent = [row.name for name, row in paper.conditional.items() if name not in systems]
    for name in {**paper.conditional, **systems}:
        ours, published = systems.get(name, {}), paper.conditional.get(name)
        cells = (
            Cell(ours.get("coherence/given_rest"), published and published.coherence),
            Cell(ours.get("inception/fid/given_rest"), published and published.fid),
            Cell(ours.get("sampling/network_evaluations")),
        )
        rows.append((published.name if published else name, cells))
    return Exhibit(
        "Table 5",
        "Each modality given the rest, mean over modalities",
        ("coherence", "FID", "network evaluations"),
        tuple(rows),
        note=f"Ours is the FID of {', '.join(judged)} only." if judged and measured else "",
        metric="coherence/given_rest",
        missing=f"not part of this run: {', '.join(absent)}" if absent else "",
    )


def _unconditional(paper: Paper, systems: Mapping[str, summary.Metrics]) -> Exhibit:
    rows = []
    for name, metrics in systems.items():
        number = summary.num_modalities(metrics) or 0
        cells = tuple(
            Cell(metrics.get(f"coherence/unconditional_{k}"), published if name == "sbm_vae" else None)
            for k, published in zip((number, number - 1), paper.all_agree, strict=True)
        )
        rows.append((name, cells))
    return Exhibit(
        "Figure 5",
        "Unconditional coherence",
        ("all modalities agree (paper: ten)", "all but one agree (paper: nine)"),
        tuple(rows),
        charts.agreement_curve(systems),
        "The paper uses no guidance here; marginal guidance does.",
        metric="coherence/unconditional_k",
    )


ALL_AGREE = "Coherence against trained modalities"
"""The label of a figure that the papers lack: the coherence that goes with the FID."""


def _against_trained(systems: Mapping[str, summary.Metrics], study: Study | None) -> Iterator[Exhibit]:
    """Yield the exhibits against the number of modelled modalities: Figures 6, 7 and 27."""
    points = [(float(value), metrics) for value, metrics in (study.points if study else ()) if value.isdecimal()]
    number = max((summary.num_modalities(metrics) or 0 for metrics in systems.values()), default=0)
    if points and number:
        points.append((float(number), dict(systems)))
    unconditional, rest, all_agree = "inception/fid/unconditional", "given_rest/m0", "coherence/unconditional_all"
    what = (
        ("Figure 6", "Unconditional FID against trained modalities", unconditional, "FID", None),
        (ALL_AGREE, "Unconditional samples in which all modalities agree", all_agree, "coherence", None),
        ("Figure 7a", "FID of the first modality given the rest", f"inception/fid/{rest}", "FID", None),
        ("Figure 7b", "Coherence of the first modality given the rest", f"coherence/{rest}", "coherence", None),
        (
            "Figure 27",
            "Seconds to generate 256 joint samples",
            "sampling/samples_per_second",
            "seconds",
            lambda rate: 256 / rate,
        ),
    )
    for label, title, metric, unit, convert in what:
        chart = chart_over(points, metric, "modalities", unit, convert)
        note = "The paper times conditional samples." if label == "Figure 27" else ""
        yield Exhibit(label, title, chart=chart, metric=metric, study="modalities", note=note)


def _against_observed(systems: Mapping[str, summary.Metrics]) -> Iterator[Exhibit]:
    """Yield the exhibits against the number of observed modalities: Figures 8, 9, 12 and 13."""
    what = (
        ("Figure 8", "FID of the last modality", "inception/fid/fixed_order/given_{}", "FID"),
        ("Figure 9", "Coherence of the last modality", "coherence/fixed_order/given_{}/last", "coherence"),
        ("Figure 12", "FID of the first modality", "inception/fid/to_target/given_{}/m0", "FID"),
        ("Figure 13", "Coherence of the first modality", "coherence/to_target/given_{}/m0", "coherence"),
    )
    for label, title, pattern, unit in what:
        chart = _by_observed(systems, pattern, unit)
        yield Exhibit(label, f"{title} against observed ones", chart=chart, metric=pattern.format("k"))


def _per_modality(systems: Mapping[str, summary.Metrics]) -> Iterator[Exhibit]:
    what = (
        ("Figure 14", "Coherence of each modality given the rest", "coherence/given_rest"),
        ("Figure 15", "FID of each modality given the rest", "inception/fid/given_rest"),
    )
    for label, title, metric in what:
        prefix = f"{metric}/"
        names = list(dict.fromkeys(m for metrics in systems.values() for m in metrics if m.startswith(prefix)))
        rows = tuple((name, tuple(Cell(metrics.get(m)) for m in names)) for name, metrics in systems.items())
        columns = tuple(name.removeprefix(prefix) for name in names)
        yield Exhibit(label, title, columns, rows if names else (), metric=metric)


def _steps(study: Study | None) -> Exhibit:
    systems = {
        f"{name}, {value} steps": metrics
        for value, by_system in (study.points if study else ())
        for name, metrics in by_system.items()
        if name.startswith("sbm_vae")  # as in the paper; curves of all systems would be indistinguishable
    }
    chart = _by_observed(systems, "coherence/fixed_order/given_{}/last", "coherence")
    title = "Guidance and steps: coherence of the last modality against observed ones"
    return Exhibit("Figure 11", title, chart=chart, study="steps")


def _beta(paper: Paper, study: Study | None) -> Exhibit:
    rows = []
    for value, by_system in study.points if study else ():
        coherence, fid = paper.beta.get(value, (None, None))
        for name, metrics in by_system.items():
            ours = metrics.get("coherence/given_rest"), metrics.get("inception/fid/given_rest")
            rows.append((f"{name}, beta {value}", (Cell(ours[0], coherence), Cell(ours[1], fid))))
    title = "Weight of the KL divergence, two modalities"
    return Exhibit("Table 6", title, ("coherence", "FID"), tuple(rows), study="beta")


def _beta_of_baselines(by_study: Mapping[str, Study]) -> Iterator[Exhibit]:
    what = (
        ("Figure 16", "mmvae_plus", "coherence", "coherence/fixed_order/given_{}/last"),
        ("Figure 17", "mmvae_plus", "FID", "inception/fid/fixed_order/given_{}"),
        ("Figure 18", "mvtcae", "coherence", "coherence/fixed_order/given_{}/last"),
        ("Figure 19", "mvtcae", "FID", "inception/fid/fixed_order/given_{}"),
    )
    for label, name, unit, pattern in what:
        study = by_study.get(f"beta of {name}")
        points = {f"beta {value}": systems[name] for value, systems in (study.points if study else ())}
        title = f"{PAPER_NAMES[name]}: {unit} of the last modality, by the weight of the KL divergence"
        chart = _by_observed(points, pattern, unit)
        yield Exhibit(label, title, chart=chart, metric=pattern.format("k"), study=f"beta of {name}")


PAPER_NAMES = {"mmvae_plus": "MMVAE+", "mvtcae": "MVTCAE"}


def _cosine(paper: Paper, systems: Mapping[str, summary.Metrics]) -> Exhibit:
    metric = "latents/cosine/given_rest"
    chosen = {name: metrics for name, metrics in systems.items() if metric in metrics}
    rows = []
    for i, published in enumerate(paper.cosine):
        cells = tuple(Cell(metrics.get(f"{metric}/m{i}")) for metrics in chosen.values())
        if any(cell.ours for cell in cells):
            rows.append((f"m{i}", (*cells, Cell(None, Published(published)))))
    mean = Published(round(sum(paper.cosine) / len(paper.cosine), 3))
    if chosen:
        rows.append(("mean", (*(Cell(metrics[metric]) for metrics in chosen.values()), Cell(None, mean))))
    return Exhibit(
        "Table 7",
        "Cosine similarity of generated with encoded latents, given the rest",
        (*chosen, PAPER_COLUMN),
        tuple(rows),
        note="Ours is for standardised latents (part of which is equal across modalities if they are aligned); the "
        "paper's is for SBM-VAE-C. Its backgrounds differ from ours, so that only the mean compares.",
        metric="latents/cosine/given_rest",
    )


def _class_shares(systems: Mapping[str, summary.Metrics]) -> Exhibit:
    classes = max((summary.num_classes(metrics) or 0 for metrics in systems.values()), default=0)
    rows = tuple(
        (name, tuple(Cell(metrics.get(f"coverage/class_{k}")) for k in range(classes)))
        for name, metrics in systems.items()
    )
    title = "Share of each class in unconditional samples"
    columns = tuple(map(str, range(classes)))
    return Exhibit("Figure 20", title, columns, rows if classes else (), metric="coverage")


def _classifier(paper: Paper, systems: Mapping[str, summary.Metrics]) -> Exhibit:
    found = next((m["classifier/accuracy"] for m in systems.values() if "classifier/accuracy" in m), None)
    rows = (("real test images", (Cell(found, paper.classifier),)),)
    return Exhibit("A.2", "The classifier that judges", ("accuracy",), rows, metric="classifier/accuracy")


def _finetuning(systems: Mapping[str, summary.Metrics], study: Study | None) -> Iterator[Exhibit]:
    tuned = {
        f"p = {value}": metrics
        for value, by_system in (study.points if study else ())
        for metrics in by_system.values()
    }
    if tuned and "sbm_vae" in systems:
        tuned["not fine-tuned"] = systems["sbm_vae"]
    what = (
        ("Figure 21", "FID", "inception/fid/fixed_order/given_{}"),
        ("Figure 22", "coherence", "coherence/fixed_order/given_{}/last"),
    )
    for label, unit, pattern in what:
        title = f"Fine-tuned decoders: {unit} of the last modality"
        note = "The paper fine-tunes for 50 epochs, with another score model (NCSN) and beta 0.5."
        yield Exhibit(label, title, chart=_by_observed(tuned, pattern, unit), note=note, study="fine-tuning")


def _samples_given_rest(labels: Mapping[str, str], figures: Figures) -> Iterator[Exhibit]:
    """Yield true images of a modality above each system's samples given the other modalities of the same rows."""
    for label, name in labels.items():
        found = {system: grids.get(f"samples/given_rest/data/{name}") for system, grids in figures.items()}
        found = {system: cells for system, cells in found.items() if cells is not None}
        lines = {"true": next(iter(found.values()))[:, 0]} if found else {}  # [E, *shape]
        lines |= {system: cells[:, 1] for system, cells in found.items()}
        data = {heading: cells[None] for heading, cells in lines.items()}
        observed = np.zeros((1, len(next(iter(lines.values()), ())), len(lines)), bool)
        observed[:, :, :1] = True
        panels = tuple(images.panels(data, observed, transposed=True)) if found else ()
        title = f"Samples of {name} given the rest, below the true images"
        yield Exhibit(label, title, panels=panels, metric="samples/given_rest")


def _samples_given_one(labels: Mapping[str, str], figures: Figures) -> Iterator[Exhibit]:
    """Yield samples of each system, on its own line, given one modality of a few rows."""
    prefix = "samples/given_one/data/"
    for label, given in labels.items():
        found = {}
        for system, grids in figures.items():
            cells = {name.removeprefix(prefix): grid for name, grid in grids.items() if name.startswith(prefix)}
            if given in cells:
                line = list(cells).index(given)
                found[system] = {name: grid[:, line] for name, grid in cells.items()}  # [E, *shape]
        yield Exhibit(
            label,
            f"Everything else given {given}",
            panels=_by_system(found, given) if found else (),
            metric="samples/given_one",
        )


def _unconditional_samples(label: str, figures: Figures, count: int = 4) -> Exhibit:
    """Return joint samples of all systems, one line per system."""
    prefix = "samples/unconditional/data/"
    found = {
        system: {name.removeprefix(prefix): cells[0] for name, cells in grids.items() if name.startswith(prefix)}
        for system, grids in figures.items()
    }
    found = {system: cells for system, cells in found.items() if cells}
    first = {system: {name: cells[:count] for name, cells in grids.items()} for system, grids in found.items()}
    title = "Joint samples of each system, generated from nothing"
    return Exhibit(label, title, panels=_by_system(first) if first else (), metric="samples/unconditional")


def _by_system(
    found: Mapping[str, Mapping[str, np.ndarray]], given: str = ""
) -> tuple[images.Panel | images.TextPanel, ...]:
    """Return a panel for each of E examples, with a line per system.

    Args:
      found: {system: {modality: [E, *shape]}}.
      given: name of the given modality; "" for none.
    """
    names = list(next(iter(found.values())))
    data = {name: np.stack([cells[name] for cells in found.values()], axis=1) for name in names}
    observed = np.zeros((len(data[names[0]]), len(found), len(names)), bool)
    observed[:, :, [name == given for name in names]] = True
    return tuple(images.panels(data, observed, tuple(found)))


# MARK: Parts


def _by_observed(systems: Mapping[str, summary.Metrics], pattern: str, ylabel: str) -> charts.Chart | None:
    """Plot a metric against the number of observed modalities, which is part of its name."""
    series: dict[str, list[tuple[float, float, float]]] = {}
    for name, metrics in systems.items():
        for size in range(1, 100):
            estimate = metrics.get(pattern.format(size))
            if estimate and estimate["value"] is not None:
                series.setdefault(name, []).append((size, estimate["value"], estimate["std"] or 0.0))
    return charts.lines(series, "modalities observed", ylabel)


def _with_reason(exhibit: Exhibit, results: Mapping[str, Any]) -> Exhibit:
    """Return the exhibit, with the reason if something is missing."""
    filled = [
        column == PAPER_COLUMN or any(row[i].ours for _, row in exhibit.rows)
        for i, column in enumerate(exhibit.columns)
    ]
    if exhibit.chart or exhibit.panels or (filled and all(filled)):
        return exhibit
    if any(filled):
        lacking = [column for column, there in zip(exhibit.columns, filled, strict=True) if not there]
        reason = f"{', '.join(lacking)}: {_reason('inception/fid', results)}"
        return exhibit._replace(missing="; ".join(filter(None, (reason, exhibit.missing))))
    if exhibit.study and exhibit.study in {variation["study"] for variation in results.get("to_come", ())}:
        return exhibit._replace(rows=(), missing="still to come in this run")
    if exhibit.study and not any(study.name == exhibit.study for study in studies(results)):
        return exhibit._replace(rows=(), missing=f"the study {exhibit.study!r} is not part of this run")
    return exhibit._replace(rows=(), missing=_reason(exhibit.metric, results))


def _reason(metric: str, results: Mapping[str, Any]) -> str:
    """Return why a metric, or the family it belongs to, is not available."""
    reasons: dict[str, str] = {}
    for system in results["systems"].values():
        reasons |= system.get("not_available", {})
    named = [name for name in reasons if f"{metric}/".startswith(f"{name.removesuffix('_k')}/") or name == metric]
    named += [name for name in reasons if name.endswith("_k") and metric.startswith(name.removesuffix("_k"))]
    return reasons[max(named, key=len)] if named else "not measured in this run"
