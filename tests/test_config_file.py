"""What `--config` and its overrides may be, and what is said of those that may not."""

import importlib.metadata
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from sbm_jax import config_file, experiment_config, training_command
from sbm_jax.errors import SbmError
from sbm_jax.experiment_config import CHOICES, complete
from sbm_jax.preemption import RESUME
from sbm_jax.systems.classifier import ClassifierConfig
from sbm_jax.systems.sbm_energy import EnergyConfig
from sbm_jax.systems.score_stage import ScoreConfig

ROOT = Path(__file__).parents[1]
TINY = f"--config={ROOT}/tests/robustness/tiny.py:nowhere"


@pytest.fixture
def parse(monkeypatch):
    """Return the experiment of a command line."""

    def parse(*arguments):
        values = flags.FlagValues()
        argv = ["main", *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        config = config_flags.DEFINE_config_file("config", flag_values=values)
        values["config"].parser = config_file.ConfigParser("config", complete, CHOICES)
        values(argv)
        return experiment_config.parse_config(config.value)

    return parse


def _at(config, path):
    for part in path.replace("[", ".").replace("]", "").split("."):
        if isinstance(config, dict):
            config = config[part]
        else:
            config = config[int(part)] if part.isdigit() else getattr(config, part)
    return config


# MARK: Overrides


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [
        ("data.missing", "0.1", 0.1),  # the file leaves it to its default
        ("methods.sbm_m.strength", "2", 2.0),  # and the whole group
        ("methods.mopoe.given", "mixture", "mixture"),
        ("methods.joint_posterior.score_prior.training.num_steps", "7", 7),
        ("published", "sbm", "sbm"),
        ("systems", "sbm_vae,mld", ("sbm_vae", "mld")),
        ("systems", "sbm_vae", ("sbm_vae",)),
        ("systems", "('sbm_vae', 'mld')", ("sbm_vae", "mld")),
        ("systems", "[sbm_vae, mld]", ("sbm_vae", "mld")),
        ("joint", "", ()),
        ("autoencoder.network.widths", "32,64", (32, 64)),
        ("modalities[1].bounds", "-1,1.5", (-1.0, 1.5)),
        ("modalities[0].latent_size", "8", 8),
        ("modalities[2].scale", "2", 2.0),
        ("modalities[0].codec.name", "residual_conv", "residual_conv"),
        ("modalities[0].codec.beta", "0.3", 0.3),
        ("modalities[0].codec.weight", "2", 2.0),
        ("modalities[0].codec.training", "{'num_steps': 5}", {"num_steps": 5}),
        ("score.training.num_steps", "1e3", 1000),
        ("autoencoder.beta", "1", 1.0),
        ("score.training.split_parameters", "true", True),
        ("data.polymnist.max_train", "5", 5),
        ("data.polymnist.max_train", "None", None),
        ("classifier", "None", None),
        ("data.arrays.directory", "~/a,b", "~/a,b"),
    ],
)
def test_any_field_can_be_overridden(parse, path, text, value):
    assert _at(parse(TINY, f"--config.{path}={text}"), path) == value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("score.training.num_step=5", r"--config.score.training.num_step: 'num_step'. Did you mean 'num_steps'"),
        ("modalities[0].latent_siz=8", "Did you mean 'latent_size'"),
        ("modalities[3].scale=8", "has 3 entries"),
        ("modalities.scale=8", r"is a tuple; name one of its entries"),
        ("modalities[a].scale=8", r"is a tuple; name one of its entries"),
        ("seed.x=1", "config.seed is no group of fields"),
        ("variations=1", r"variations\[0\] must be a group of fields, not 1"),
        ("methods.sbm_d.strength=1", "Did you mean 'sbm_"),
        ("methods.mvae.alpha=1", "unknown field in --config.methods.mvae.alpha: 'alpha'"),
        ("data.options.size=1", r"config.data.options is an empty group; .*=\"{'size': ...}\""),
        ("seed.=1", "does not name a field"),
        ("=1", "does not name a field"),
        ("score.training.num_steps=1.5", r"num_steps=1.5: expected a whole number$"),
        ("score.training.num_steps=many", r"num_steps=many: expected a whole number$"),
        ("autoencoder.beta=x", r"beta=x: expected a number$"),
        ("score.training.split_parameters=7", "split_parameters=7: expected true or false"),
        ("classifier=3", "classifier=3: expected a group of fields"),
        ("seed=None", "config.seed must be int, not None"),
        ("autoencoder.network.widths=a", r"widths\[0\] must be int, not 'a'"),
    ],
)
def test_wrong_overrides_are_told_in_plain_words(parse, override, message):
    with pytest.raises((SbmError, flags.Error), match=message) as caught:
        parse(TINY, f"--config.{override}")
    assert "\\" not in str(caught.value)


def test_a_group_that_is_none_is_switched_on_as_a_whole(parse, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.robustness import tiny\n"
        "def get_config():\n    config = tiny.get_config('nowhere')\n    del config.classifier\n    return config\n"
    )
    assert parse(f"--config={path}").classifier is None
    with pytest.raises(SbmError, match=r"config.classifier is None, and has no 'hidden'.*--config.classifier=\{\} for"):
        parse(f"--config={path}", "--config.classifier.hidden=2")
    assert parse(f"--config={path}", "--config.classifier={}").classifier == ClassifierConfig()
    group = "{'training': {'num_steps': 3}}"
    assert parse(f"--config={path}", f"--config.classifier={group}").classifier.training.num_steps == 3


def test_a_file_may_say_only_what_differs_from_the_defaults(parse, tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        "import sbm_jax\nfrom ml_collections import ConfigDict\n"
        "def get_config():\n    config = sbm_jax.default_config()\n    config.methods.sbm_c.strength = 3\n"
        "    config.classifier = ConfigDict({'hidden': 2})\n"
        "    config.modalities = ({'name': 'a', 'shape': (3,), 'latent_size': 2},)\n    return config\n"
    )
    overrides = ("modalities[0].likelihood=laplace", "methods.sbm_c.depth=1", "classifier.dropout=0.5")
    config = parse(f"--config={path}", *(f"--config.{override}" for override in overrides))
    assert config.classifier == ClassifierConfig(hidden=2, dropout=0.5)
    assert config.methods["sbm_c"] == EnergyConfig(strength=3.0, depth=1)
    assert config.modalities[0].likelihood == "laplace"
    assert config.score == ScoreConfig()
    path.write_text(
        "import sbm_jax\ndef get_config():\n    config = sbm_jax.default_config()\n"
        "    config.methods.sbm_c.strenth = 3\n"
    )
    with pytest.raises(SbmError, match=r"line 4: .*no field \"strenth\".*Did you mean \"strength\"") as caught:
        parse(f"--config={path}")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", ["quickstart.py:all", "polymnist.py:best,studies"])
def test_filling_in_defaults_changes_no_config(parse, name):
    assert parse(f"--config={ROOT}/configs/{name}") == experiment_config.parse_config(
        config_file.read(f"{ROOT}/configs/{name}")
    )


def test_fields_that_are_computed_from_others_follow_overrides(tmp_path, parse):
    path = tmp_path / "own.py"
    path.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.robustness import tiny\n"
        "def get_config():\n    config = tiny.get_config('nowhere')\n"
        "    config.sampler.num_particles = config.sampler.get_ref('num_steps')\n    return config\n"
    )
    assert parse(f"--config={path}", "--config.sampler.num_steps=9").sampler.num_particles == 9


@pytest.fixture
def own(tmp_path):
    """Return the flag of a config file that changes the defaults."""

    def own(*lines):
        path = tmp_path / "own.py"
        start = (
            f"import sys; sys.path.insert(0, {str(ROOT)!r})",
            "import sbm_jax",
            "def get_config():",
            "    config = sbm_jax.default_config()",
            "    config.modalities = ({'name': 'a', 'shape': (3,), 'latent_size': 2},)",
        )
        path.write_text("\n".join((*start, *(f"    {line}" for line in lines), "    return config", "")))
        return f"--config={path}"

    return own


def test_options_of_metrics_are_overridden_that_a_file_leaves_out(parse, own):
    file = own(
        "config.evaluation.metrics.mse = {'modality': 'a'}",
        "config.evaluation.metrics.coherence = None",
        "config.evaluation.metrics.mine = {'name': 'tests.extension.metric:Brightness', 'modality': 'a'}",
    )
    overrides = ("mse.given=a,b", "mine.given=b", "frechet.num_examples=70")
    metrics = parse(file, *(f"--config.evaluation.metrics.{override}" for override in overrides)).evaluation.metrics
    assert metrics["mse"]["given"] == ["a", "b"]
    assert metrics["mine"] == {"name": "tests.extension.metric:Brightness", "modality": "a", "given": ["b"]}
    assert metrics["frechet"]["num_examples"] == 70
    assert metrics["coherence"] is None
    with pytest.raises(SbmError, match="Did you mean 'given'"):
        parse(file, "--config.evaluation.metrics.mse.giben=a")


def test_options_of_a_data_set_of_others_are_overridden(parse, own):
    file = own("config.data.name = 'tests.extension.dataset:DATASET'", "config.data.options.num_rows = 5")
    assert parse(file, "--config.data.options.radius=3").data.options == {"num_rows": 5, "radius": 3.0}
    other = own("config.data.options.num_rows = 5")
    name = "--config.data.name=tests.extension.dataset:DATASET"
    assert parse(other, "--config.data.options.radius=3", name).data.options == {"num_rows": 5, "radius": 3.0}
    with pytest.raises(SbmError, match=r"own.py --config.data.name: unknown data set 'tests'"):
        parse(file, "--config.data.name", "tests")


def test_names_that_choose_groups_come_before_other_overrides(parse, own):
    theirs, strength = "tests.extension.method:NEAREST", "--config.methods.nearest.num_neighbours=3"
    for systems in (
        (f"--config.systems=sbm_vae,{theirs}",),
        ("--config.systems=sbm_vae", f"--config.systems={theirs}"),
        ("--config.systems", f"sbm_vae,{theirs}"),
    ):
        for arguments in ((*systems, strength), (strength, *systems)):
            config = parse(own(), *arguments)
            assert config.systems == ("sbm_vae", theirs)
            assert config.methods["nearest"].num_neighbours == 3
    file = own(f"config.systems = ({theirs!r},)", "config.methods.nearest = {'num_neighbours': 2}")
    assert parse(file, "--config.systems=sbm_vae").systems == ("sbm_vae",)


@pytest.mark.parametrize(
    "path", ["methods", "methods.sbm_c", "data", "data.options", "evaluation", "evaluation.metrics"]
)
def test_a_group_that_must_be_there_is_told(parse, own, path):
    with pytest.raises(SbmError, match=f"own.py: config.{path} must be a group of fields, not None"):
        parse(own(f"config.{path} = None"))
    with pytest.raises(SbmError, match="must be a group of fields, not None"):
        parse(own(), f"--config.{path}=None")


def test_systems_are_a_tuple(parse, tmp_path):
    (tmp_path / "own.py").write_text(
        "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'systems': 'sbm_vae'})\n"
    )
    with pytest.raises(SbmError, match=r"config\.systems is .sbm_vae.; expected a tuple of names"):
        parse(f"--config={tmp_path}/own.py")


# MARK: Files

FILES = {
    "def get_config():\n    from ml_collections import ConfigDict\n    return ConfigDict({'seed': 1}).sede": (
        'line 3: AttributeError: .*Did you mean "seed"'
    ),
    "def get_config():\n    return '3' + 1\n": "line 2: TypeError: can only concatenate",
    "def get_config():\n    return ConfigDict()\n": "line 2: NameError: name 'ConfigDict' is not defined",
    "def get_config(:\n    pass\n": "line 1: SyntaxError: ",
    "\x00": "own.py.* null bytes",
    "1 / 0": "line 1: ZeroDivisionError: division by zero",
    "x = 1\n": "has no function get_config",
    "get_config = 3\n": "has no function get_config",
    "def get_config():\n    return {'a': 1}\n": "returns dict; expected an ml_collections.ConfigDict",
    "def get_config():\n    pass\n": "returns NoneType; expected",
    "def get_config(variant):\n    pass\n": "name variants after a colon",
    "import nothing_of_this_name\n": "line 1: ModuleNotFoundError: No module named",
    "def get_config():\n    raise ValueError('first\\nsecond')\n": "line 2: first second$",
    "from sbm_jax.types import Modality\ndef get_config():\n    Modality('a', (3,), 0)\n": (
        "line 3: modality 'a': latent_size is 0; expected at least 1.$"
    ),
    "from pathlib import Path\nPath('nowhere.txt').read_text()\n": "line 2: FileNotFoundError: .*nowhere.txt",
    f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom tests.robustness import tiny\n"
    "from ml_collections import config_dict\ndef get_config():\n    config = tiny.get_config('nowhere')\n"
    "    config.seed = config_dict.required_placeholder(int)\n    return config\n": "required_placeholder has no value",
    "get_config = int\n": "get_config of .*own.py",
    "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'scroe': {}})\n": (
        "unknown field of config: 'scroe'. Did you mean 'score'"
    ),
}


@pytest.mark.parametrize("content", FILES)
def test_what_is_wrong_in_a_config_file_is_told_in_one_line(tmp_path, parse, content):
    path = tmp_path / "own.py"
    path.write_text(content)
    with pytest.raises(SbmError, match=FILES[content]) as caught:
        parse(f"--config={path}", "--config.seed=3")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "override" not in str(caught.value)


def test_an_error_in_what_a_config_imports_is_told_with_its_place(tmp_path, monkeypatch):
    (tmp_path / "own_helper.py").write_text("\n\nsize = undefined\n")
    (tmp_path / "own.py").write_text("import own_helper\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SbmError, match=r"own_helper.py, line 3: NameError"):
        config_file.read(str(tmp_path / "own.py"))


def test_configs_of_a_wheel_are_found_outside_of_the_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "share/sbm_jax/configs").mkdir(parents=True)
    (tmp_path / "share/sbm_jax/configs/own.py").write_text("import sbm_jax\n\nget_config = sbm_jax.default_config\n")
    file = importlib.metadata.PackagePath("share/sbm_jax/configs/own.py")
    file.dist = importlib.metadata.PathDistribution(tmp_path / "sbm_jax.dist-info")
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [file])
    assert isinstance(config_file.read("configs/own.py"), ConfigDict)
    for missing in ("configs/other.py", "own.py", "other/own.py"):
        with pytest.raises(SbmError, match="no such file"):
            config_file.read(missing)


def test_a_config_file_must_be_a_file(tmp_path):
    with pytest.raises(SbmError, match="it is a directory"):
        config_file.read(str(tmp_path))
    with pytest.raises(SbmError, match="there is no such file"):
        config_file.read(str(tmp_path / "none.py"))
    (tmp_path / "image.png").write_bytes(bytes(range(256)))
    with pytest.raises(SbmError, match=r"image\.png"):
        config_file.read(str(tmp_path / "image.png"))
    (tmp_path / "own.py").write_text("def get_config(): pass\n")
    with pytest.raises(SbmError, match="leave out ':fast'"):
        config_file.read(f"{tmp_path}/own.py:fast")


def test_the_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "HOME", str(tmp_path))
    (tmp_path / "own.py").write_text("from ml_collections import ConfigDict\nget_config = ConfigDict\n")
    assert config_file.read("~/own.py") == ConfigDict()
    with pytest.raises(SbmError, match=r"--config: '~nobody_of_this_name/own.py' names no home directory"):
        config_file.read("~nobody_of_this_name/own.py")


# MARK: Processes


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer"), RESUME, "another process"),
        (ValueError("of its own"), 1, "this process failed (ValueError)"),
    ],
)
def test_a_lost_connection_is_told_from_an_error_of_the_process(monkeypatch, capsys, error, status, told):
    def fail(config):
        raise error

    monkeypatch.setattr(training_command.parallel, "start", lambda: None)
    monkeypatch.setattr(training_command.experiment_config, "parse_config", fail)
    monkeypatch.setattr(training_command, "_CONFIG", SimpleNamespace(value=None))
    monkeypatch.setattr(training_command, "_GRACE", SimpleNamespace(value=10.0))
    monkeypatch.setattr(training_command.jax, "process_count", lambda: 2)
    monkeypatch.setattr(training_command.os, "_exit", sys.exit)
    with pytest.raises(SystemExit) as ended:
        training_command._main(["main"])
    assert ended.value.code == status
    errors = capsys.readouterr().err
    assert told in errors
    assert ("Traceback" in errors) == (status == 1)


# MARK: Terminals


def test_nothing_that_is_printed_ends_a_run(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # as by >&-
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stderr", narrow)
    training_command._print_anywhere()
    print("±")
    print("± of \udcff", file=sys.stderr, flush=True)
    assert narrow.buffer.getvalue() == b"? of ?\n"
    sys.stdout.close()
