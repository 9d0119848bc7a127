"""The direction of dependencies: each package imports only what stands below it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BASE = {
    "types",
    "errors",
    "config",
    "registry",
    "rows",
    "memory",
    "progress",
    "storage",
    "parallel",
    "sde",
    "tokens",
    "parameterization",
    "distributions",
    "mixtures",
    "system",
}
MAY_IMPORT = {
    "types": {"config", "errors", "tokens"},
    "system": {"types"},
    "errors": set(),
    "registry": {"errors"},
    "rows": set(),
    "config": {"errors"},
    "config_file": {"errors", "storage"},
    "progress": set(),
    "storage": {"errors"},
    "parallel": {"types", "errors", "rows"},
    "memory": {"errors"},
    "preemption": set(),
    "lock": {"errors"},
    "sde": {"config", "types", "errors"},
    "tokens": set(),
    "parameterization": {"types", "errors"},
    "distributions": {"types", "errors"},
    "mixtures": {"types", "errors", "sde", "storage"},
    "networks": BASE | {"losses", "sampling"},
    "formats": BASE | {"networks"},  # vocoders
    "losses": BASE,
    "sampling": BASE,
    "data": BASE - {"sde"} | {"formats"},
    "training": BASE | {"data", "preemption"},
    "evaluation": BASE,
    "report": BASE | {"formats"},
    "systems": BASE | {"networks", "losses", "sampling", "data"},
    "runner": BASE | {"sampling"},
    "pretrained_judges": BASE | {"data", "evaluation", "formats", "networks"},
    "judges": BASE
    | {"data", "evaluation", "formats", "networks", "pretrained_judges", "runner", "sampling", "systems"},
    "experiment_config": BASE | {"data", "evaluation", "sampling", "systems"},
    "experiment": BASE
    | {
        "data",
        "evaluation",
        "experiment_config",
        "formats",
        "judges",
        "lock",
        "pretrained_judges",
        "report",
        "sampling",
        "systems",
        "training",
    },
    "exporting": BASE | {"formats", "runner", "sampling"},
    "trained": BASE
    | {"data", "exporting", "formats", "experiment_config", "runner", "sampling", "systems", "training"},
    "commands": BASE | {"data", "experiment_config", "report", "sampling", "trained", "training"},
    "arguments": {"errors"},
    "explore": BASE
    | {"arguments", "commands", "data", "experiment_config", "formats", "report", "sampling", "systems", "trained"},
    "command_line": {"arguments", "commands", "errors", "explore", "training_command"},
    "main": {"command_line"},
    "training_command": {
        "config_file",
        "errors",
        "experiment",
        "experiment_config",
        "parallel",
        "preemption",
        "storage",
    },
    "kinds": BASE | {"data", "formats"},
    "presets": BASE | {"evaluation", "experiment_config", "kinds"},
    "fitting": BASE | {"data", "experiment", "experiment_config", "kinds", "presets", "trained"},
    "__init__": {"experiment_config", "fitting", "trained"},
}


def _imports(path: Path) -> set[str]:
    """Return the parts of sbm_jax that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "sbm_jax":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sbm_jax."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("sbm_jax.")}
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "sbm_jax").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_dependencies_point_one_way(path):
    part = path.relative_to(ROOT / "sbm_jax").parts[0].removesuffix(".py")
    forbidden = _imports(path) - MAY_IMPORT[part] - {part, "__version__"}
    assert not forbidden, f"{part} must not import {sorted(forbidden)}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.name)
def test_configs_import_only_defaults_and_presets(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            known = ("typing", "ml_collections", "sbm_jax", "sbm_jax.presets", f"sbm_jax.data.{path.stem}")
            assert names in [[name] for name in known]
