"""README and the documentation: Python blocks run, what is named exists, and the pages build without a warning."""

import functools
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml
from matplotlib import pyplot

import sbm_jax
from sbm_jax import config_file, fitting, presets
from sbm_jax.data import DATASETS
from sbm_jax.evaluation.estimates import SPREADS
from sbm_jax.evaluation.metrics import METRICS
from sbm_jax.kinds import KINDS
from sbm_jax.networks.codecs import CODECS
from sbm_jax.sampling import CONDITIONINGS, GRIDS, SOLVERS
from sbm_jax.systems.methods import METHODS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *DOCS.rglob("*.md"))
    if "_build" not in path.parts
)
CELL = "{code-cell} python"
NOTES = ("trains", "parse only", "needs: ")
"""How a comment begins that says why a block is not run as it stands."""


class Block(NamedTuple):
    """A fenced block, and the comment above it."""

    note: str
    language: str
    code: str
    line: int


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, *languages):
    text = read(page)
    fences = re.finditer(
        r"(?:^<!-- (.+?) -->\n)?^```(\w+|\{code-cell\} python)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    )
    found = [Block(m[1] or "", m[2], m[3], text[: m.start(3)].count("\n")) for m in fences]
    return [block for block in found if block.language in languages]


def run(page, chosen, namespace):
    for block in chosen:
        code = compile("\n" * block.line + block.code, ROOT / page, "exec", dont_inherit=True)
        exec(code, namespace)


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A directory of its own, in which nothing of a page is kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(ROOT))


# MARK: Blocks


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")])
def test_python_blocks_run(page, away):
    found = blocks(page, "python")
    for block in found:
        assert not block.note or block.note.startswith(NOTES), block.note
        compile(block.code, f"{page}:{block.line}", "exec")
    run(page, [block for block in found if not block.note], {"__name__": page})


@pytest.fixture
def short(monkeypatch):
    """`fit` trains for a few steps."""
    make = presets.make_config

    def in_few_steps(*arguments):
        config = make(*arguments)
        methods = config.methods
        for stage in filter(
            None, [config.autoencoder, config.score, config.classifier, methods.joint_posterior, methods.mld]
        ):
            stage.training.update(num_steps=4, steps_per_dispatch=1, checkpoint_every=0, validate_every=0)
        config.score.network.update(width=32, depth=1)
        config.systems = config.systems[:1]
        config.evaluation.update(num_examples=6, num_unconditional=6, batch_size=6, num_repeats=1)
        config.evaluation.metrics = {"mse": {}, "sampling": {}}
        return config

    monkeypatch.setattr(fitting.presets, "make_config", in_few_steps)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.note == "trains" for block in blocks(page, "python"))]
)
@pytest.mark.usefixtures("away", "short")
def test_python_blocks_that_train_do(page):
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 256, (60, 16, 16, 3), dtype=np.uint8)
    captions = np.array(["a small red bird", "a large blue bird", "a bird"])[rng.integers(0, 3, 60)]
    given = {"photos": photos, "masks": photos.mean(axis=3) > 128, "captions": captions}
    run(page, [block for block in blocks(page, "python") if block.note == "trains"], given)


LONGEST = ("docs/tutorials/quickstart.md", "docs/tutorials/comparing_methods.md")
"""Tutorials that take ten minutes even in their short form."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.exhaustive) if page in LONGEST else page
        for page in PAGES
        if blocks(page, CELL)
    ],
)
@pytest.mark.usefixtures("away", "short")
def test_tutorials_run_in_their_short_form(page, monkeypatch):
    read_config = config_file.read
    monkeypatch.setattr(config_file, "read", lambda name: read_config(f"{ROOT / name}:smoke"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a judge that does not converge on samples of untrained networks
        run(page, blocks(page, CELL), {"__name__": page})
    pyplot.close("all")


def spans(page):
    """Return what stands in backquotes, and the lines of shell blocks."""
    text = read(page)
    inline = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))
    return [*inline, *(line for block in blocks(page, "sh") for line in block.code.splitlines())]


@functools.cache
def all_spans():
    return [(page, span) for page in PAGES for span in spans(page)]


@functools.cache
def config_of(name):
    file, _, variants = name.partition(":")
    spec = importlib.util.spec_from_file_location(f"config_{file[:-3]}", ROOT / "configs" / file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variants)


CONFIG_FILES = "|".join(path.stem for path in (ROOT / "configs").glob("*.py"))


def test_configs_exist_with_their_variants():
    for page, span in all_spans():
        for file, variants in re.findall(rf"(?<![\w/])(?:configs/)?((?:{CONFIG_FILES})\.py)(:[\w,]+)?", span):
            assert config_of(file + variants).name, page


def test_options_of_the_config_exist():
    config = sbm_jax.default_config()
    for page, span in all_spans():
        for path in re.findall(r"(?:^|--)config(?!\.json)((?:\.\w+)+)", span):
            group = config
            for part in path.strip(".").split("."):
                if group is None or part in ("nearest", "mine"):  # the options of what is off, or not of this package
                    break
                assert part in group, f"{page}: config{path}"
                group = group[part]


def test_files_modules_and_flags_exist():
    for page, span in all_spans():
        for path in re.findall(r"(?<![\w./])((?:sbm_jax|benchmarks|launch|tests|configs)/[\w./-]*)", span):
            assert (ROOT / path).exists(), f"{page}: {path}"
        for path in re.findall(r"(?<![\w./])([a-z_]+/[a-z_]+\.py)\b", span):
            assert (ROOT / path).exists() or (ROOT / "sbm_jax" / path).exists(), f"{page}: {path}"
        if re.fullmatch(r"[a-z_0-9]+\.py", span) and span != "mine.py":
            assert span in file_names(), f"{page}: {span}"
        for module, arguments in re.findall(r"python -m ((?:sbm_jax|benchmarks|tests)\.[\w.]+)([^`]*)", span):
            command = "sbm_jax.training_command" if module == "sbm_jax.main" else module  # which it runs
            source = importlib.util.find_spec(command).origin
            code = Path(source).read_text(encoding="utf-8")
            for flag in re.findall(r"--([a-z_]+)(?=[= ]|$)", arguments):
                assert f'"{flag}"' in code or f'"--{flag}"' in code or f"--{flag}" in code, f"{page}: {module} --{flag}"
        for extras in re.findall(r"\.\[([\w,]+)\]'", span):
            assert {*extras.split(",")} <= {*project()["optional-dependencies"]}, f"{page}: {extras}"


def test_dotted_names_exist():
    for page, span in all_spans():
        if re.fullmatch(r"sbm_jax(\.\w+)+(\(.*\))?", span):
            assert resolve(span.partition("(")[0]), f"{page}: {span}"
        elif re.fullmatch(r"(?!config\.|.*\.py$)[a-z_]+(\.[a-z_]+)*\.[A-Za-z_]+", span) and is_module(
            span.partition(".")[0]
        ):
            assert resolve(f"sbm_jax.{span}") or is_option(span), f"{page}: {span}"


def is_module(name):
    return (ROOT / "sbm_jax" / name).is_dir() or (ROOT / "sbm_jax" / f"{name}.py").exists()


@functools.cache
def file_names():
    return {path.name for folder in ("sbm_jax", "configs", "benchmarks") for path in (ROOT / folder).rglob("*.py")}


def resolve(name):
    parts = name.split(".")
    for number in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:number]))
        except ModuleNotFoundError:
            continue
        try:
            functools.reduce(getattr, parts[number:], found)
        except AttributeError:
            return False
        return True
    return False


def is_option(path):
    group = sbm_jax.default_config()
    for part in path.split("."):
        if part not in group:
            return False
        group = group[part]
    return True


def test_links_lead_somewhere():
    for page in PAGES:
        assert "[](" not in read(page), f"{page}: a link without text"
        for link in re.findall(r"\]\(([^)\s]+)\)", read(page)):
            if not link.startswith("https://"):
                assert (ROOT / page).parent.joinpath(link.partition("#")[0]).exists(), f"{page}: {link}"


def test_pages_speak_of_no_machine():
    for page in PAGES:
        assert not re.findall(r"(?<![\w.])/(?:work|tmp|root|home|farm|opt)/\S*", read(page)), page


# MARK: Nothing is left out

LISTS = [
    ("docs/methods/index.md", [name for name in METHODS if not name.endswith(("_diffusion", "_score", "_mixture"))]),
    ("docs/evaluation.md", METRICS),
    ("docs/evaluation.md", SPREADS),
    ("docs/your_data.md", KINDS),
    ("docs/your_data.md", CODECS),
    ("docs/your_data.md", DATASETS),
    ("docs/sampling.md", SOLVERS),
    ("docs/sampling.md", GRIDS),
    ("docs/sampling.md", CONDITIONINGS),
    ("docs/configs.md", [path.name for path in (ROOT / "configs").glob("*.py")]),
]


@pytest.mark.parametrize(("page", "names"), LISTS)
def test_everything_is_named(page, names):
    words = {word for span in re.findall(r"`([^`\n]+)`", read(page)) for word in (span, span.partition(":")[0])}
    assert {*names} <= words, {*names} - words


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_readme_is_short_and_versions_agree():
    assert len(read("README.md").splitlines()) <= 150
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited["version"] == sbm_jax.__version__
    assert f"\n## {sbm_jax.__version__}\n" in read("CHANGELOG.md")
    assert cited["license"] == project()["license"]


# MARK: The build


@pytest.mark.slow
def test_it_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    for module in ("sphinx", "myst_nb", "furo"):
        pytest.importorskip(module, reason="the documentation is built with the extra 'docs'")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        DOCS,
        tmp_path / "html",
        "-d",
        tmp_path / "tree",
    ]
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment = os.environ | nowhere | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = [*(tmp_path / "html").rglob("*.html")]
    assert len(pages) >= len([page for page in PAGES if page.startswith("docs/")])
    elsewhere = r"(?:https?:)?//"
    loaded = rf'<(?:script|img|iframe)[^>]* src="{elsewhere}|<link[^>]*rel="stylesheet"[^>]* href="{elsewhere}'
    for page in pages:
        assert not re.findall(loaded, page.read_text(encoding="utf-8")), page.name
    sbm = (tmp_path / "html" / "methods" / "sbm.html").read_text(encoding="utf-8")
    assert "<math" in sbm
    assert "probability_alone" in sbm
