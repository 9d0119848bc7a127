"""Timing for benchmarks: medians and quartiles over repeats, in wall time and in CPU time."""

import time
from collections.abc import Callable, Mapping

import numpy as np


def measure(run: Callable[[], object], repeats: int) -> dict[str, float]:
    """Time a call that returns when its work is done; see `measure_in_turn`."""
    return measure_in_turn({"": run}, repeats)[""]


def measure_in_turn(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Time several calls one after another in every repeat, so that other load on the machine affects all alike.

    Args:
      runs: warmed-up calls that return when their work is done.
      repeats: number of timed repeats.

    Returns:
      For each call ``seconds`` (median), ``seconds_q25``, ``seconds_q75``, and ``cpu_seconds``, the median of the CPU
      time that all threads of this process spent.
    """
    wall, cpu = ({name: [] for name in runs} for _ in range(2))
    for _ in range(repeats):
        for name, run in runs.items():
            wall_start, cpu_start = time.perf_counter(), time.process_time()
            run()
            wall[name].append(time.perf_counter() - wall_start)
            cpu[name].append(time.process_time() - cpu_start)
    return {name: _summary(wall[name], cpu[name]) for name in runs}


def _summary(wall: list[float], cpu: list[float]) -> dict[str, float]:
    low, median, high = np.quantile(wall, (0.25, 0.5, 0.75))
    return {
        "seconds": float(median),
        "seconds_q25": float(low),
        "seconds_q75": float(high),
        "cpu_seconds": float(np.median(cpu)),
    }


def rates(batch: int, evaluations: int, times: dict[str, float]) -> dict[str, float]:
    """Return the times of one call, and the rates that follow from them.

    Args:
      batch: samples per call.
      evaluations: network evaluations per call.
      times: from `measure`.

    Returns:
      `times`, ``evaluations``, samples per second, and milliseconds per evaluation of the whole batch.
    """
    return {
        "evaluations": evaluations,
        **times,
        "samples_per_second": batch / times["seconds"],
        "samples_per_cpu_second": batch / times["cpu_seconds"],
        "ms_per_evaluation": 1e3 * times["seconds"] / evaluations,
        "cpu_ms_per_evaluation": 1e3 * times["cpu_seconds"] / evaluations,
    }
