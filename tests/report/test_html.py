import base64
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from sbm_jax.report import figures as charts
from sbm_jax.report import html, summary

HOSTILE = "<script>alert('$x^$')</script>\"&"


class Page(HTMLParser):
    """Collects the text, the tags, and every address that a browser would follow."""

    def __init__(self, source):
        super().__init__()
        self.text, self.tags, self.addresses, self.ids = "", [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.text += data


def estimate(value, std=0.0123, n=1500):
    return {"value": value, "std": std, "n": n}


def results(name="sbm_vae"):
    metrics = {
        "coherence/given_rest": estimate(0.876),
        "coherence/given_1": estimate(0.6),
        "coherence/given_2": estimate(0.7, None),
        "coherence/unconditional_2": estimate(0.5),
        "coherence/unconditional_3": estimate(0.3),
        "coherence/unconditional_all": estimate(0.3),
        "frechet/m0": estimate(12.3),
        "reconstruction/mse/a": estimate(None, None),
        "inception/fid/given_rest/m0": estimate(80.0) | {"spread": "standard_error"},
        "coverage/min": estimate(0.07),
        "coverage/min_expected": estimate(0.086) | {"spread": "draws"},
        **{f"coverage/class_{k}": estimate(0.1) for k in range(10)},
    }
    return {
        "systems": {name: {"metrics": metrics, "not_available": {"classifier/accuracy": f"no {HOSTILE}"}}},
        "config": {"data": {"name": HOSTILE, "sizes": [1, 2]}, HOSTILE: 3},
        "versions": {"jax": "0.10.2", "sbm_jax": None},
        "device": {"platform": HOSTILE},
        "command": f"python -m sbm_jax.main {HOSTILE}",
        "name": HOSTILE,
        "data": {
            "metrics": {
                "inception/fid/real/m0": estimate(26.8),
                **{f"coverage/real/class_{k}": estimate(0.123, None) for k in range(10)},
            }
        },
        "seconds": {HOSTILE: 192.0},
    }


def arrays(modality="a"):
    return {
        f"samples/given_one/data/{modality}": np.zeros((2, 3, 4, 4, 3), np.float32),
        "samples/given_one/data/attributes": np.ones((2, 3, 5), np.float32),
        "samples/given_one/observed": np.eye(3, 2, dtype=bool)[None].repeat(2, axis=0),
        "samples/another/data/a": np.zeros((1, 1, 4, 4, 1), np.float32),
        "samples/another/observed": np.zeros((1, 1, 1), bool),
        "class_shares": np.full((3, 10), 0.1),
    }


CURVES = {
    HOSTILE: [
        {"step": 1, "loss": 100.0},
        {"step": 2, "loss": 1.0},
        {"step": 2, "split": "validation", "loss": 2.0},
    ],
    "empty": [{"step": 1, "loss": float("nan")}, {"step": 2}],
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    path = html.write_report(workdir, results(HOSTILE), {HOSTILE: arrays(HOSTILE)}, CURVES)
    assert path == workdir / "report" / "index.html"
    return path.read_text(encoding="utf-8")


def test_page_needs_nothing_from_outside(source):
    page = Page(source)
    assert page.addresses
    assert all(address.startswith(("data:image/", "#")) for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert not re.search(r"url\(|@import", source)


def test_links_of_the_contents_have_targets(source):
    page = Page(source)
    targets = [address[1:] for address in page.addresses if address.startswith("#")]
    assert targets
    assert set(targets) <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_everything_shown_is_escaped(source):
    assert "<script" not in source
    page = Page(source)
    # System, config name and value, device, command, stage, reason and modality.
    assert page.text.count("<script>alert") >= 8


def test_numbers_are_those_of_the_results(source):
    text = " ".join(Page(source).text.split())
    assert "0.876 ± 0.012 (1,500)" in text
    assert "0.700 (1,500)" in text
    assert "chance 0.10" in text
    assert "independent 0.01" in text
    assert "frechet/m0 12.3" in text
    assert "not finite" in text
    assert "perfect 0.086" in text
    assert "80.0 ± 0.0 (1,500) 26.8 ± 0.0 (1,500)" in text  # beside real data
    assert "0.123 (1,500)" in text
    assert "3 min 12 s" in text
    assert "data.sizes" in text


def test_each_number_says_what_its_spread_is(source):
    assert f'title="± {summary.SPREADS["standard_error"]}"' in source
    assert f'title="± {summary.SPREADS["draws"]}"' in source


def test_page_of_an_almost_empty_run():
    page = html.render({"systems": {"sbm_vae": {"metrics": {}}}}, {}, {})
    assert "<h1>sbm_vae</h1>" in page
    assert "<img" not in page


def test_equal_results_give_equal_pages():
    pages = {html.render(results(), {"sbm_vae": arrays()}, CURVES) for _ in range(2)}
    assert len(pages) == 1


def test_charts_are_none_without_their_numbers():
    assert charts.conditional_curve({"a": {}}) is None
    assert charts.agreement_curve({"a": {}}) is None
    assert charts.class_bars({}, None) is None
    assert charts.training_curves({"empty": CURVES["empty"]}) is None


def test_charts_differ_between_themes():
    chart = charts.conditional_curve({"a": results()["systems"]["sbm_vae"]["metrics"]})
    prefix = "data:image/svg+xml;base64,"
    light, dark = (base64.b64decode(address.removeprefix(prefix)).decode() for address in chart)
    assert charts.LIGHT.series[0] in light
    assert charts.DARK.series[0] in dark
    assert charts.LIGHT.series[0] not in dark


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (192, "3 min 12 s"), (7260, "2 h 1 min"), (None, "not recorded")]
)
def test_duration(seconds, text):
    assert html.duration(seconds) == text
