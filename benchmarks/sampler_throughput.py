"""Samples per second, and time per network evaluation, of the sampler with untrained networks.

    python -m benchmarks.sampler_throughput
    taskset -c 0 python -m benchmarks.sampler_throughput --threads=1 --against=torch \
        --networks=unet:128,transformer:128x4

Every list flag is swept, and each combination is measured as one row: a JSON line on standard output, and a table at
the end. A network is `name:width`, `name:widthxdepth`, or `unet:width:plain`, which uses XLA's own convolutions instead
of matrix forms. With `--against=torch` (the extra ``bench``), PyTorch runs the same networks with the same weights, and
the paper's sampler too, and ratios are printed.
"""

import dataclasses
import itertools
import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import app, flags
from rich.console import Console
from rich.table import Table

from benchmarks.sampling_cases import MODES, Case, evaluation_flops, make_given, make_model, make_params, make_sampler
from benchmarks.timing import measure, rates
from sbm_jax import report
from sbm_jax.errors import SbmError, require

_NETWORKS = flags.DEFINE_list("networks", ["transformer:128x4", "mlp:1024x4", "unet:64"], "Score networks.")
_SOLVERS = flags.DEFINE_list("solvers", ["sde_dpm_solver_pp_2m"], "Keys of `sbm_jax.sampling.SOLVERS`.")
_STEPS = flags.DEFINE_list("steps", ["10"], "Solver steps.")
_BATCHES = flags.DEFINE_list("batches", ["256"], "Rows sampled at once.")
_MODALITIES = flags.DEFINE_list("modalities", ["10"], "Numbers of modalities.")
_OBSERVED = flags.DEFINE_list("observed", ["0"], "Numbers of given modalities.")
_DTYPES = flags.DEFINE_list("dtypes", ["float32"], "Dtypes of the operands of matrix products.")
_MODES = flags.DEFINE_list("modes", ["jit"], "How to run: jit (one device), shard_map or pmap (all devices).")
_CHUNKS = flags.DEFINE_list("chunks", ["0"], "Rows sampled at a time; 0 for the library's choice.")
_GUIDANCES = flags.DEFINE_list("guidance", ["none"], "Guidance: none, energy, contrastive.")
_REPEATS = flags.DEFINE_integer("repeats", 5, "How often each row is timed.", lower_bound=1)
_PEAK_TFLOPS = flags.DEFINE_float("peak_tflops", None, "Peak TFLOP/s of one device, to print the fraction reached.")
_AGAINST = flags.DEFINE_enum("against", None, ["torch"], "Also run PyTorch, and print ratios.")
_PEER_STEPS = flags.DEFINE_integer("peer_steps", 3, "Timed steps of the paper's sampler.", lower_bound=3)
_THREADS = flags.DEFINE_integer("threads", None, "PyTorch's threads; limit XLA's by `taskset -c 0`.")
_OUT = flags.DEFINE_string("out", None, "A directory for sampler_throughput.jsonl.")

# MARK: One row of the table


def run_case(case: Case, repeats: int, peak_tflops: float | None = None) -> dict[str, Any]:
    """Compile and time one combination.

    Args:
      case: the combination.
      repeats: number of timed repeats.
      peak_tflops: peak TFLOP/s of one device, or None.

    Returns:
      The choices, ``compile_seconds``, times, and rates; see `rates`.

    Raises:
      SbmError: on a combination that cannot run.
    """
    devices = 1 if case.mode == "jit" else jax.device_count()
    if case.batch % devices:
        raise SbmError(f"batch {case.batch} does not split over {devices} devices; choose a multiple.")
    model = make_model(case.network, case.dtype)
    params, key = make_params(model, case.modalities), jax.random.key(2)
    function, given = MODES[case.mode](make_sampler(model, case), make_given(case))
    start = time.perf_counter()
    compiled = function.lower(params, key, given).compile()
    compile_seconds = time.perf_counter() - start
    jax.block_until_ready(compiled(params, key, given))
    times = measure(lambda: jax.block_until_ready(compiled(params, key, given)), repeats)
    row = {"runner": "sbm_jax", **dataclasses.asdict(case), "devices": devices, "compile_seconds": compile_seconds}
    row |= rates(case.batch, case.evaluations, times)
    if case.guidance == "energy":  # whose own operations are not counted in an evaluation
        return row
    flops = evaluation_flops(case)
    rate = flops * case.evaluations / times["seconds"]
    row |= {"gflop_per_evaluation": flops / 1e9, "gflop_per_second": rate / 1e9}
    return {**row, "fraction_of_peak": rate / (1e12 * peak_tflops * devices)} if peak_tflops else row


def matmul_gflops(dtype: str, repeats: int = 5, size: int = 2048) -> float:
    """Return the GFLOP/s of one large matrix product on one device, accumulated in float32."""
    x = jnp.ones((size, size), dtype)
    product = jax.jit(lambda x: jnp.matmul(x, x, preferred_element_type=jnp.float32))
    product(x).block_until_ready()
    return 2e-9 * size**3 / measure(lambda: product(x).block_until_ready(), repeats)["seconds"]


# MARK: The whole run


def swept_cases() -> Iterator[Case]:
    """Yield every combination of the flags."""
    for combination in itertools.product(
        _NETWORKS.value,
        _SOLVERS.value,
        whole_numbers(_STEPS),
        whole_numbers(_BATCHES),
        whole_numbers(_MODALITIES),
        whole_numbers(_OBSERVED),
        _DTYPES.value,
        _MODES.value,
        whole_numbers(_CHUNKS),
        _GUIDANCES.value,
    ):
        yield Case(*combination)


def whole_numbers(flag: flags.FlagHolder[list[str]]) -> list[int]:
    """Return the integers listed in a flag.

    Raises:
      SbmError: if one is not a whole number.
    """
    for text in flag.value:
        require(text.isdigit(), f"--{flag.name}", text, "a whole number")
    return [int(text) for text in flag.value]


MEASURED = ("compile_seconds", "seconds", "ms_per_evaluation", "samples_per_second", "samples_per_cpu_second")
MEASURED += ("gflop_per_second", "fraction_of_peak")
PEER_MEASURED = ("first_call_seconds", "seconds", "cpu_ms_per_evaluation", "samples_per_cpu_second")
PEER_MEASURED += ("cpu_time_relative_to_ours", "samples_relative_to_paper", "left_out")


def table(title: str, rows: Sequence[dict[str, Any]], measured: Sequence[str]) -> Table:
    """Tabulate rows: the choices in which they differ, and the measurements."""
    result = Table(title=title, title_justify="left")
    choices = ["runner", *(field.name for field in dataclasses.fields(Case))]
    columns = [name for name in choices if name == "network" or len({row.get(name) for row in rows}) > 1]
    columns += [name for name in measured if any(name in row for row in rows)]
    for column in columns:
        result.add_column(column.replace("_", " "))
    for row in rows:
        result.add_row(*(_cell(row, column) for column in columns))
    return result


def _cell(row: dict[str, Any], column: str) -> str:
    value = row.get(column, "-")
    if not isinstance(value, float):
        return str(value)
    text = f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
    return f"{text} ({row['seconds_q25']:.3g}-{row['seconds_q75']:.3g})" if column == "seconds" else text


def _run(emit: Callable[[dict[str, Any]], None]) -> list[dict[str, Any]]:
    rows = []
    for case in list(swept_cases()):
        try:
            rows.append(run_case(case, _REPEATS.value, _PEAK_TFLOPS.value))
        except SbmError as error:
            emit({**dataclasses.asdict(case), "left_out": str(error)})
            continue
        emit(rows[-1])
    return rows


def _main(argv: list[str]) -> None:
    del argv
    out = Path(_OUT.value) / "sampler_throughput.jsonl" if _OUT.value else None
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text("", encoding="utf-8")

    def emit(row: dict[str, Any]) -> None:
        line = json.dumps(row)
        print(line, flush=True)
        if out:
            with out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    console = Console(width=None if sys.stdout.isatty() else 200)
    peers: list[dict[str, Any]] = []
    try:
        matmul = {dtype: matmul_gflops(dtype) for dtype in _DTYPES.value}
        command = " ".join(["python -m benchmarks.sampler_throughput", *map(shlex.quote, sys.argv[1:])])
        emit({"command": command, **report.versions(), "processor": platform.processor() or platform.machine()})
        emit({"device": jax.devices()[0].device_kind, "devices": jax.device_count(), "matmul_gflop_per_second": matmul})
        rows = _run(emit)
        if _AGAINST.value == "torch":
            if set(_GUIDANCES.value) != {"none"} or set(_MODES.value) != {"jit"} or set(_DTYPES.value) != {"float32"}:
                raise SbmError("--against=torch supports only --guidance=none, --modes=jit and --dtypes=float32.")
            cases = [case for case in swept_cases() if "plain" not in case.network]
            for row in _torch_peers().compare(cases, _PEER_STEPS.value, _REPEATS.value, _THREADS.value):
                peers.append(row)
                emit(row)
    except SbmError as error:
        sys.exit(f"error: {error}")
    reached = ", ".join(f"{dtype} {value:,.0f}" for dtype, value in matmul.items())
    title = f"Sampler throughput; seconds with quartiles; a large matrix product reaches {reached} GFLOP/s"
    console.print(table(title, rows, MEASURED))
    if peers:
        console.print(table("Against PyTorch, the same network evaluations", peers, PEER_MEASURED))


def _torch_peers() -> Any:
    """Import the module of peers, which needs PyTorch and diffusers.

    Raises:
      SbmError: if they are not installed.
    """
    try:
        from benchmarks import torch_peers
    except ImportError as error:
        raise SbmError(
            f"--against=torch needs PyTorch and diffusers ({error}); install them: pip install -e '.[bench]'."
        ) from error
    return torch_peers


if __name__ == "__main__":
    app.run(_main)
