"""The error of each sampler on a problem with a known answer: Gaussian mixtures over modalities, with exact scores.

    python -m benchmarks.known_answer [--mixture=FILE.npz] [--out=DIR] [--beta_max=20,5] [--quick | --full]

A mixture is diffused by VP (0.1, beta_max); some modalities are observed, and the rest is sampled with the exact score
and compared with the exact conditional law. Conditionings with a time per modality get the score of the joint latents
at those times, whose unobserved part is the score of the diffused conditional law; those with a single time get the
score of the diffused joint law. Entries are first standardised to mean 0 and variance 1, as latents are. That is exact,
because an affine map of a mixture is a mixture, and changes none of the numbers below.

Each number is an average over conditions (observed latents drawn from the mixture), shown beside its floor: the same
number for as many exact samples.

  mode weights  total variation ½ Σ_k |v_k - w_k| between the exact posterior weights w_k = p(k | observed) and those
                of the samples, v_k = mean of p(k | observed, sample)
  mean          mean over unobserved entries of |sample mean - exact mean| / exact standard deviation
  covariance    ‖C - C*‖ / ‖C*‖ (Frobenius) between the samples' and the exact covariance of the unobserved entries, in
                units of the exact standard deviations
  coherence     Σ_k v_k w_k, the expected exact posterior probability of the generated component; exact samples have
                Σ_k w_k²

Exact standard deviations below the noise left at a sampler's end time (0.02) cannot be resolved: the errors of mean
and covariance are then large, and a note says so.

Writes one JSON line per row to standard output and tables at the end; `--out` keeps the lines and a plot.
"""

import dataclasses
import functools
import json
import math
import platform
import shlex
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from rich import box
from rich.console import Console
from rich.table import Table

from sbm_jax.errors import SbmError, require
from sbm_jax.mixtures import GaussianMixture, SpectralMixture, random_mixture, read_mixture, spectral
from sbm_jax.report import figures
from sbm_jax.sampling import CONDITIONINGS, SOLVERS, SamplerOptions, sample
from sbm_jax.sampling.starts import gaussian_conditional
from sbm_jax.sde import SDE, VP
from sbm_jax.types import Array, Context, Key

BETA_MIN = 0.1
PAPER_END_TIME = 1e-3
START_ALPHA = 0.08  # α at the start time of samplers with a Gaussian start
METRICS = ("mode_weights", "mean", "covariance")
_DEAR = 200  # methods with more network evaluations draw fewer samples
_LEAST_ERROR = 1e-4  # smaller errors, down to 0, are drawn here on the logarithmic axis

# MARK: Methods


class Method(NamedTuple):
    """A sampler to be judged.

    Attributes:
      line: the line of the plot that it is a point of; "" for none.
      options: see `SamplerOptions`.
      gaussian_start: whether it starts from the Gaussian conditional.
      common: whether it is run for all processes, or only for the first.
    """

    line: str
    options: SamplerOptions
    gaussian_start: bool = False
    common: bool = True

    @property
    def evaluations(self) -> int:
        """Network evaluations per sample."""
        options = self.options
        solver = SOLVERS[options.solver](options.snr, options.corrector_steps)
        particles = options.num_particles if CONDITIONINGS[options.conditioning].filters else 1
        return options.num_steps * solver.evaluations * solver.repeats * options.resampling * particles


def quick_methods(start_time: float) -> list[Method]:
    """Return a few methods that show the main differences."""
    paper = SamplerOptions("predictor_corrector", 50, "uniform", "clean", end_time=PAPER_END_TIME)
    return [
        *(Method("SDE-DPM-Solver++ 2M", SamplerOptions(num_steps=steps)) for steps in (10, 20)),
        Method("DPM-Solver++ 2M", SamplerOptions("dpm_solver_pp_2m", 10)),
        Method("DPM-Solver++ 2M, Gaussian start", SamplerOptions("dpm_solver_pp_2m", 5, start_time=start_time), True),
        Method("clean, predictor-corrector", paper),
        Method("particles", SamplerOptions(num_steps=20, conditioning="particles", num_particles=16)),
    ]


def all_methods(start_time: float, full: bool) -> Iterator[Method]:
    """Yield every solver on its grids, every conditioning, and the starts.

    Args:
      start_time: the start time of samplers with a Gaussian start.
      full: whether to include methods that take minutes.
    """
    names = {"sde_dpm_solver_pp_2m": "SDE-DPM-Solver++ 2M", "dpm_solver_pp_2m": "DPM-Solver++ 2M"}
    for solver, name in names.items():
        for steps in (5, 10, 20, 50):
            yield Method(name, SamplerOptions(solver, steps))
        for grid, steps in (("karras", 10), ("karras", 20), ("uniform", 20)):
            yield Method("", SamplerOptions(solver, steps, grid), common=False)
        for steps in (5, 10):
            yield Method(f"{name}, Gaussian start", SamplerOptions(solver, steps, start_time=start_time), True)
    for steps in (10, 20, 50):
        yield Method("DDIM", SamplerOptions("ddim", steps), common=False)
    for steps in (5, 10, 25):
        yield Method("Heun", SamplerOptions("heun", steps, "karras"), common=False)
    yield Method("", SamplerOptions("heun", 10), common=False)
    for steps in (20, 50, 100):
        yield Method("Euler-Maruyama", SamplerOptions("euler_maruyama", steps, "uniform"), common=False)
    yield Method("", SamplerOptions("langevin", 20, snr=0.5, corrector_steps=5), common=False)
    yield Method("", SamplerOptions("corrector_predictor", 50, "uniform"), common=False)
    for steps in (20, 50, 100):
        paper = SamplerOptions("predictor_corrector", steps, "uniform", end_time=PAPER_END_TIME)
        yield Method("predictor-corrector", paper, common=steps == 100)
    yield from _single_time_methods(full)


def _single_time_methods(full: bool) -> Iterator[Method]:
    for steps in (100, 1000) if full else (100,):
        for conditioning in ("clean", "replacement", "reference"):
            paper = SamplerOptions("predictor_corrector", steps, "uniform", conditioning, end_time=PAPER_END_TIME)
            yield Method(f"{conditioning}, predictor-corrector", paper)
    for steps, times in ((20, 5), (50, 10)):
        repaint = SamplerOptions(num_steps=steps, conditioning="replacement", resampling=times)
        yield Method("replacement, RePaint", repaint, common=False)
    for count in (4, 16, 64, 256) if full else (4, 16, 64):
        filtered = SamplerOptions(num_steps=50, conditioning="particles", num_particles=count)
        yield Method("particles", filtered, common=count == 16)


# MARK: The known answer


@dataclasses.dataclass(frozen=True)
class Problem:
    """A sampling problem, and the exact answer.

    Attributes:
      observed: bool [M], True = given.
      z_observed: latents [R, M, D] of R conditions.
      joint: the law of all latents, repeated for each condition.
      conditional: the law of the unobserved latents given each condition.
      weights: exact posterior weights [R, K].
      means: exact means of the unobserved entries [R, U].
      covariances: exact covariances of the unobserved entries [R, U, U].
    """

    observed: np.ndarray
    z_observed: Array
    joint: SpectralMixture
    conditional: SpectralMixture
    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @property
    def free(self) -> np.ndarray:
        """Bool [M * D], the unobserved entries."""
        return np.repeat(~self.observed, self.z_observed.shape[2])


def make_problem(mixture: GaussianMixture, observed: np.ndarray, num_conditions: int, seed: int) -> Problem:
    """Draw conditions from a standardised mixture and compute the exact answers."""
    rng = np.random.default_rng(seed)
    count, modalities, size = mixture.means.shape
    components = rng.choice(count, num_conditions, p=mixture.weights)
    factors = np.linalg.cholesky(mixture.covariances)[components]
    noise = np.einsum("rij,rj->ri", factors, rng.normal(size=(num_conditions, modalities * size)))
    z = mixture.means[components] + noise.reshape(num_conditions, modalities, size)
    law = mixture.condition(z, observed)
    means = law.means.reshape(num_conditions, count, -1)
    mean = np.einsum("rk,rku->ru", law.weights, means)
    centred = means - mean[:, None]
    joint = spectral(
        np.broadcast_to(mixture.weights, (num_conditions, count)),
        np.broadcast_to(mixture.means.reshape(count, -1), (num_conditions, count, modalities * size)),
        mixture.covariances,
        np.ones(modalities * size, bool),
    )
    return Problem(
        observed=observed,
        z_observed=jnp.asarray(z, jnp.float32),
        joint=joint,
        conditional=spectral(law.weights, means, law.covariances, np.repeat(~observed, size)),
        weights=law.weights,
        means=mean,
        covariances=np.einsum("rk,kuv->ruv", law.weights, law.covariances)
        + np.einsum("rk,rku,rkv->ruv", law.weights, centred, centred),
    )


def observed_sets(num_modalities: int) -> dict[str, np.ndarray]:
    """Return the observed sets by name: the first modality alone, and all but the last unless that is the same."""
    positions = np.arange(num_modalities)
    sets = {"first": positions < 1, "all but last": positions < num_modalities - 1}
    return sets if num_modalities > 2 else {"first": sets["first"]}


# MARK: Running and judging

# Compilation takes much of the time; this level halves it without slowing down the loops.
_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 1})


def _by_condition(law: SpectralMixture, function, *arguments: Array) -> Any:
    """Map `function(law of one condition, *arguments of one condition)` over all conditions, one at a time."""

    def one(condition):
        log_weights, means, *rest = condition
        return function(law.replace(log_weights=log_weights, means=means), *rest)

    return jax.lax.map(one, (law.log_weights, law.means, *arguments))


@functools.partial(_jit, static_argnames=("sde", "options", "num_samples", "gaussian_start"))
def _draw(
    law: SpectralMixture,
    key: Key,
    z_observed: Array,
    observed: Array,
    moments: tuple[Array, Array],
    sde: SDE,
    options: SamplerOptions,
    num_samples: int,
    gaussian_start: bool,
) -> tuple[Array, Array]:
    """Return samples [R, S, M * D], NaN where diverged, and the network evaluations per sample."""

    def draw(law: SpectralMixture, z_observed: Array, key: Key) -> tuple[Array, Array]:
        shape = (num_samples, *z_observed.shape)
        context = Context(jnp.broadcast_to(observed[None], shape[:2]), jnp.ones(shape[1:], bool))
        z_observed = jnp.broadcast_to(z_observed[None], shape)

        def score_fn(key: Key, z: Array, t: Array) -> Array:
            del key
            return law.score(sde, z.reshape(len(z), -1), jnp.max(t)).reshape(z.shape)  # observed modalities have time 0

        start_key, key = jax.random.split(key)
        start = gaussian_conditional(start_key, z_observed, context, *moments) if gaussian_start else None
        result = sample(score_fn, sde, key, z_observed, context, options, start=start)
        return result.z.reshape(num_samples, -1), result.network_evaluations

    samples, evaluations = _by_condition(law, draw, z_observed, jax.random.split(key, len(z_observed)))
    return samples, evaluations[0]


@functools.partial(_jit, static_argnames="num_samples")
def _draw_exactly(law: SpectralMixture, key: Key, num_samples: int) -> Array:
    keys = jax.random.split(key, len(law.log_weights))
    return _by_condition(law, lambda law, key: law.sample(key, num_samples), keys)


@_jit
def _statistics(law: SpectralMixture, samples: Array) -> tuple[Array, Array, Array]:
    """Return mode weights [R, K], means [R, n] and covariances [R, n, n] of the samples that did not diverge."""

    def statistics(law: SpectralMixture, z: Array) -> tuple[Array, Array, Array]:
        kept = jnp.all(jnp.isfinite(z), axis=1)
        z = jnp.where(kept[:, None], z, 0.0)
        share = jnp.where(jnp.any(kept), kept / jnp.maximum(jnp.sum(kept), 1), jnp.nan)[:, None]
        mean = jnp.sum(share * z, axis=0)
        centred = jnp.where(kept[:, None], z - mean[None], 0.0)
        covariance = jnp.matmul((share * centred).T, centred, precision="highest")
        return jnp.sum(share * law.responsibilities(z), axis=0), mean, covariance

    return _by_condition(law, statistics, samples)


def judge(problem: Problem, samples: Array) -> dict[str, float]:
    """Return the metrics of samples [R, S, M * D], and the share that diverged."""
    weights, means, covariances = (np.asarray(x, np.float64) for x in _statistics(problem.conditional, samples))
    free = problem.free
    deviation = np.sqrt(np.einsum("ruu->ru", problem.covariances))
    scale = deviation[:, :, None] * deviation[:, None, :]
    difference = (covariances[:, free][:, :, free] - problem.covariances) / scale
    exact_norm = np.linalg.norm(problem.covariances / scale, axis=(1, 2))
    return {
        "mode_weights": 0.5 * np.mean(np.sum(np.abs(weights - problem.weights), axis=1)),
        "mean": np.mean(np.abs(means[:, free] - problem.means) / deviation),
        "covariance": np.mean(np.linalg.norm(difference, axis=(1, 2)) / exact_norm),
        "coherence": np.mean(np.sum(weights * problem.weights, axis=1)),
        "coherence_exact": np.mean(np.sum(problem.weights**2, axis=1)),
        "diverged": 1 - float(np.mean(np.isfinite(np.asarray(samples)).all(axis=2))),
    }


@dataclasses.dataclass(frozen=True)
class Bench:
    """The problems of one mixture, and the number of samples.

    Attributes:
      problems: problems by name of the observed set.
      moments: mean [M, D] and covariance [M*D, M*D] of the mixture.
      num_samples: samples per condition; expensive methods draw fewer (`samples_of`).
      floors: the metrics of exact samples, by name of the observed set and number of samples.
      seed: seed of the samplers.
    """

    problems: Mapping[str, Problem]
    moments: tuple[Array, Array]
    num_samples: int
    floors: Mapping[tuple[str, int], dict[str, float]]
    seed: int

    def rows(self, methods: Sequence[Method], beta_max: float) -> Iterator[dict[str, Any]]:
        """Yield a row of results for each method and observed set."""
        for method in methods:
            for name in self.problems:
                yield {"observed": name, "beta_max": beta_max, **self._row(method, VP(BETA_MIN, beta_max), name)}

    def _row(self, method: Method, sde: SDE, name: str) -> dict[str, Any]:
        problem, options = self.problems[name], method.options
        num_samples = samples_of(method.evaluations, self.num_samples)
        filters = CONDITIONINGS[options.conditioning].filters
        samples, evaluations = _draw(
            problem.conditional if CONDITIONINGS[options.conditioning].own_times else problem.joint,
            # Each method has its own key, whichever others are run.
            jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(f"{sde} {method} {name}".encode())),
            problem.z_observed,
            jnp.asarray(problem.observed),
            self.moments,
            sde=sde,
            options=options,
            num_samples=num_samples,
            gaussian_start=method.gaussian_start,
        )
        floor = self.floors[name, num_samples]
        deviations = np.sqrt(np.einsum("ruu->ru", problem.covariances))
        return {
            "line": method.line,
            "solver": options.solver,
            "grid": options.grid,
            "steps": options.num_steps,
            "conditioning": options.conditioning,
            "num_particles": options.num_particles if filters else None,
            "resampling": options.resampling,
            "gaussian_start": method.gaussian_start,
            "evaluations": int(evaluations),
            "conditions": len(problem.weights),
            "samples": num_samples,
            "least_deviation": float(deviations.min()),
            "resolution": float(sde.marginal(jnp.float32(options.end_time))[1]),
            **{metric: _rounded(value) for metric, value in judge(problem, samples).items()},
            **{f"{metric}_floor": _rounded(floor[metric]) for metric in METRICS},
        }


def make_bench(mixture: GaussianMixture, num_conditions: int, num_samples: int, seed: int) -> Bench:
    """Return the problems of a standardised mixture, with the metrics of exact samples."""
    sets = observed_sets(mixture.means.shape[1])
    problems = {name: make_problem(mixture, observed, num_conditions, seed) for name, observed in sets.items()}
    counts = {samples_of(evaluations, num_samples) for evaluations in (_DEAR, _DEAR + 1)}
    floors = {
        (name, count): judge(problem, _draw_exactly(problem.conditional, jax.random.key(seed + 1), count))
        for name, problem in problems.items()
        for count in counts
    }
    moments = tuple(jnp.asarray(moment, jnp.float32) for moment in mixture.moments())
    return Bench(problems, moments, num_samples, floors, seed)


def samples_of(evaluations: int, num_samples: int) -> int:
    """Return how many samples per condition a method draws: a quarter as many if it is expensive."""
    return num_samples if evaluations <= _DEAR else max(num_samples // 4, 2)


def affordable(mixture: GaussianMixture) -> tuple[int, int]:
    """Return numbers of conditions and of samples per condition that keep the run to minutes."""
    count, modalities, size = mixture.means.shape
    excess = count * (modalities * size) ** 2 / (5 * 24**2)  # cost of an evaluation, relative to our own mixture
    return int(np.clip(24 * 8 / excess, 8, 24)), int(np.clip(1024 * 4 / excess, 256, 1024))


def _rounded(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None


# MARK: Report


def describe(method: Mapping[str, Any]) -> str:
    """Return the name of a row's method for a table."""
    parts = [method["solver"].replace("dpm_solver_pp", "dpm++")]
    if method["conditioning"] != "per_modality":
        particles = method["num_particles"]
        parts.append(f"{particles} particles" if particles else method["conditioning"])
    if method["resampling"] > 1:
        parts.append(f"resampling {method['resampling']}")
    if method["gaussian_start"]:
        parts.append("Gaussian start")
    return ", ".join(parts)


def results_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of the rows of one process and observed set."""
    first = rows[0]
    title = f"VP ({BETA_MIN}, {first['beta_max']:g}), observed: {first['observed']}"
    title += f"; value (floor), {first['conditions']} conditions"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("method", "grid"):
        table.add_column(name, no_wrap=True)
    for name in ("evaluations", "samples", "mode weights", "mean", "covariance", "coherence (exact)"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [_cell(row[metric], row[f"{metric}_floor"]) for metric in METRICS]
        cells.append(_cell(row["coherence"], row["coherence_exact"]))
        if row["diverged"]:
            cells[-1] += f", {row['diverged']:.1%} diverged"
        counts = (str(row[name]) for name in ("evaluations", "samples"))
        table.add_row(describe(row), row["grid"], *counts, *cells)
    return table


def _cell(value: float | None, reference: float) -> str:
    return f"{'-' if value is None else format(value, '.3f')} ({reference:.3f})"


def plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the error of the mode weights against network evaluations, one line per method, and write a PNG."""
    sets = list(dict.fromkeys(row["observed"] for row in rows))
    rows = [row for row in rows if row["line"] and row["mode_weights"] is not None]
    lines = list(dict.fromkeys(row["line"] for row in rows))
    figure = Figure(figsize=(5.6 * len(sets) + 3.2, 5.2), dpi=150, layout="constrained")
    for axes, name in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets, strict=True):
        _plot_lines(axes, [row for row in rows if row["observed"] == name], lines)
        title = f"VP ({BETA_MIN}, {rows[0]['beta_max']:g}), observed: {name}"
        figures.style(axes, figures.LIGHT, "network evaluations per sample", "error of the mode weights (TV)", title)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_locator(NullLocator())
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", frameon=False, fontsize=9)
    figure.patch.set_alpha(1.0)
    # Without date and version, equal results give equal files.
    FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})


def _plot_lines(axes: Axes, rows: Sequence[Mapping[str, Any]], lines: Sequence[str]) -> None:
    colors, markers = figures.LIGHT.series, figures.MARKERS
    for i, line in enumerate(lines):
        of_line = [row for row in rows if row["line"] == line]
        points = sorted((row["evaluations"], max(row["mode_weights"], _LEAST_ERROR)) for row in of_line)
        single_time = any(row["conditioning"] != "per_modality" for row in of_line)
        axes.loglog(
            *zip(*points, strict=True),
            color=colors[i % len(colors)],
            marker=markers[(i + i // len(colors)) % len(markers)],
            linestyle="--" if single_time else "-",
            linewidth=1.5,
            markersize=5,
            label=line,
        )
    floor = max(min(row["mode_weights_floor"] for row in rows), _LEAST_ERROR)
    axes.axhline(floor, color=figures.LIGHT.muted, linestyle=":", linewidth=1.2, label="as many exact samples")


def header(mixture: GaussianMixture, source: str) -> dict[str, Any]:
    """Return the first line of the results: the command, the mixture and the platform."""
    scale = np.sqrt(np.diagonal(mixture.moments()[1]))
    count, modalities, size = mixture.means.shape
    return {
        "command": shlex.join(["python", "-m", "benchmarks.known_answer", *sys.argv[1:]]),
        "mixture": source,
        "components": count,
        "modalities": modalities,
        "size": size,
        "standardised_from": [_rounded(scale.min()), _rounded(scale.max())],
        "jax": jax.__version__,
        "python": platform.python_version(),
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
    }


# MARK: The program


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Attributes:
      mixture: an ``.npz`` file (`mixtures.read_mixture`); "" for our own mixture.
      beta_max: β(1) of each process; all methods run on the first.
      conditions: observed latents to average over; 0 for `affordable`.
      samples: samples per condition; 0 for `affordable`.
      seed: seed of the conditions and the samplers.
      quick: run a few methods on few samples.
      full: run all methods on all processes, including those that take minutes.
      out: directory for ``known_answer.jsonl`` and ``known_answer.png``; "" for none.
    """

    mixture: str = ""
    beta_max: tuple[float, ...] = (20.0, 5.0)
    conditions: int = 0
    samples: int = 0
    seed: int = 7
    quick: bool = False
    full: bool = False
    out: str = ""

    def __post_init__(self) -> None:
        """Check ranges."""
        for value in self.beta_max:
            require(BETA_MIN < value < math.inf, "--beta_max", value, f"numbers above {BETA_MIN}, such as 20,5")
        for name, least in (("conditions", 0), ("samples", 0), ("seed", 0)):
            require(getattr(self, name) >= least, f"--{name}", getattr(self, name), f"{least} or more")


def run(settings: Settings) -> list[dict[str, Any]]:
    """Run the bench and return its rows, which are also printed and, if `out` is set, written.

    Raises:
      SbmError: on a file that does not hold a mixture.
    """
    mixture = read_mixture(Path(settings.mixture)) if settings.mixture else random_mixture()
    out = Path(settings.out) if settings.out else None
    if out:
        out.mkdir(parents=True, exist_ok=True)
    first_line = header(mixture, Path(settings.mixture).name or "our own")
    print(json.dumps(first_line), flush=True)
    conditions, samples = (6, 256) if settings.quick else affordable(mixture)
    bench = make_bench(
        mixture.standardized(), settings.conditions or conditions, settings.samples or samples, settings.seed
    )
    rows = []
    for i, beta_max in enumerate(settings.beta_max[:1] if settings.quick else settings.beta_max):
        for row in bench.rows(_methods(settings, beta_max, first=i == 0), beta_max):
            print(json.dumps(row), flush=True)
            rows.append(row)
    if out:
        plot([row for row in rows if row["beta_max"] == settings.beta_max[0]], out / "known_answer.png")
        text = "".join(f"{json.dumps(line)}\n" for line in (first_line, *rows))
        (out / "known_answer.jsonl").write_text(text, encoding="utf-8")
    return rows


def _methods(settings: Settings, beta_max: float, first: bool) -> list[Method]:
    # α(1) of a slow process is above START_ALPHA; it then starts at time 1.
    log_snr = math.log(START_ALPHA) - 0.5 * math.log1p(-(START_ALPHA**2))
    start_time = min(1.0, float(VP(BETA_MIN, beta_max).time_of_half_log_snr(jnp.float32(log_snr))))
    if settings.quick:
        return quick_methods(start_time)
    return [m for m in all_methods(start_time, settings.full) if first or m.common or settings.full]


def print_tables(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table for each process and observed set."""
    console = Console(width=max(Console().width, 150))
    for group in dict.fromkeys((row["beta_max"], row["observed"]) for row in rows):
        console.print(results_table([row for row in rows if (row["beta_max"], row["observed"]) == group]))
    if any(row["least_deviation"] < row["resolution"] for row in rows):
        console.print(
            "Some exact standard deviations are below the noise left at the end time of the samplers: the mean "
            "and covariance errors above are in units that these samplers do not resolve."
        )


def _define_flags() -> None:
    # Not at import: several benchmarks define --out, and tests import them together.
    flags.DEFINE_string("mixture", "", "An .npz file: weights [K], means [K, M, D], covariances [K, M*D, M*D].")
    flags.DEFINE_list("beta_max", ["20", "5"], "The processes VP (0.1, beta_max); all methods run on the first.")
    flags.DEFINE_integer("conditions", 0, "Observed latents to average over; 0: 24, fewer for large mixtures.")
    flags.DEFINE_integer("samples", 0, "Samples per condition; 0: 1024, fewer for large mixtures.")
    flags.DEFINE_integer("seed", 7, "Seed of the conditions and of the samplers.")
    flags.DEFINE_bool("quick", False, "A few methods on few samples.")
    flags.DEFINE_bool("full", False, "All methods on all processes, including 1000 steps and 256 particles.")
    flags.DEFINE_string("out", "", "Directory for known_answer.jsonl and known_answer.png.")


def _main(argv: list[str]) -> None:
    del argv
    absl.logging.set_verbosity(absl.logging.ERROR)
    values = flags.FLAGS
    names = [field.name for field in dataclasses.fields(Settings) if field.name != "beta_max"]
    try:
        beta_max = tuple(_number(text) for text in values.beta_max)
        print_tables(run(Settings(beta_max=beta_max, **{name: getattr(values, name) for name in names})))
    except SbmError as error:
        sys.exit(f"error: {error}")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SbmError(f"--beta_max has {text!r}; expected numbers, such as 20,5.") from None


if __name__ == "__main__":
    _define_flags()
    app.run(_main)
