"""The sampler against PyTorch: the same networks with the same weights, timed in turn in one process."""

import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import torch
from torch import nn

from benchmarks import torch_samplers
from benchmarks.sampling_cases import LATENT_SIZE, Case, make_given, make_model, make_params, make_sampler
from benchmarks.timing import measure_in_turn, rates
from benchmarks.torch_networks import counterpart
from sbm_jax.networks.score import ScoreModel
from sbm_jax.sde import VP
from sbm_jax.types import Params

PAPER_STEPS = 100
PAPER_SDE = VP(0.1, 5.0)

COMPILED = "torch, compiled"

TOLERANCE = 1e-4
"""Largest allowed difference between the outputs in JAX and PyTorch, relative to the largest output."""

Run = Callable[[], object]
Row = dict[str, Any]


def compare(cases: Sequence[Case], peer_steps: int, repeats: int, threads: int | None) -> Iterator[Row]:
    """Yield a row for every way to run each network, with its CPU time for the same work relative to ours.

    Args:
      cases: the networks, batches and numbers of modalities, and the sampler to compare with the paper's.
      peer_steps: sampler steps for UNets, which are slow.
      repeats: number of timed repeats.
      threads: PyTorch's threads; None for its default.
    """
    if threads:
        torch.set_num_threads(threads)
        if len(os.sched_getaffinity(0)) != threads:
            print(f"XLA uses all cores it may run on: start under `taskset` with {threads} of them.", file=sys.stderr)
    unets = [case for case in cases if case.network.startswith("unet")]
    for case in cases:
        networks = _networks(case)
        if case in unets:
            case = dataclasses.replace(case, steps=peer_steps)
            yield from _contest(dataclasses.replace(case, solver="predictor_corrector"), networks, repeats)
            networks = {"torch": networks["torch"]}
        yield from _contest(dataclasses.replace(case, solver="dpm_solver_pp_2m"), networks, repeats)
    for case in cases:
        for unet in unets if case not in unets else ():
            paper = dataclasses.replace(unet, solver="predictor_corrector", steps=peer_steps)
            yield _against_paper(case, paper, repeats)


# MARK: Contests


def _contest(case: Case, networks: dict[str, nn.Module], repeats: int) -> Iterator[Row]:
    """Yield our row and one for each PyTorch form of the network, all with the same network evaluations."""
    what = {"network": case.network, "solver": case.solver, "batch": case.batch, "modalities": case.modalities}
    runs, compile_seconds = {"sbm_jax": _our_run(case)}, {}
    for name, network in networks.items():
        run = _torch_run(case, network)
        start = time.perf_counter()
        try:
            run()
        except RuntimeError as error:  # torch.compile without a working compiler
            yield {"runner": name, **what, "left_out": str(error).strip().splitlines()[0]}
            continue
        runs[name], compile_seconds[name] = run, time.perf_counter() - start
    timings = measure_in_turn(runs, repeats)
    ours = timings["sbm_jax"]["cpu_seconds"]
    for name, times in timings.items():
        row = {"runner": name, **what, **rates(case.batch, case.evaluations, times)}
        if name == COMPILED:
            row["first_call_seconds"] = compile_seconds[name]
        yield {**row, "cpu_time_relative_to_ours": times["cpu_seconds"] / ours}


def _against_paper(case: Case, paper: Case, repeats: int) -> Row:
    """Compare our samples per CPU second with those of the paper's sampler, which is timed on a few of its steps."""
    runs = {"ours": _our_run(case), "paper": _torch_run(paper, same_network(paper))}
    runs["paper"]()
    timings = measure_in_turn(runs, repeats)
    ours = case.batch / timings["ours"]["cpu_seconds"]
    theirs = paper.batch / (timings["paper"]["cpu_seconds"] * PAPER_STEPS / paper.steps)
    return {
        "runner": "sbm_jax",
        **{"network": case.network, "solver": case.solver, "batch": case.batch, "modalities": case.modalities},
        **rates(case.batch, case.evaluations, timings["ours"]),
        "paper_network": paper.network,
        "paper_evaluations": 2 * PAPER_STEPS,
        "paper_evaluations_timed": paper.evaluations,
        "paper_samples_per_cpu_second": theirs,
        "samples_relative_to_paper": ours / theirs,
    }


# MARK: Runs


def _our_run(case: Case) -> Run:
    """Return our sampling function, compiled and warmed up."""
    sde = PAPER_SDE if case.solver == "predictor_corrector" else VP()
    model = make_model(case.network, case.dtype, sde)
    arguments = make_params(model, case.modalities), jax.random.key(2), make_given(case)
    sampler = jax.jit(make_sampler(model, case)).lower(*arguments).compile()
    jax.block_until_ready(sampler(*arguments))
    return lambda: jax.block_until_ready(sampler(*arguments))


def _torch_run(case: Case, network: nn.Module) -> Run:
    """Return the paper's sampler, or diffusers' DPM-Solver++ 2M, over a network."""
    sampler = getattr(torch_samplers, case.solver)
    given = make_given(case)
    z, observed = (torch.from_numpy(np.array(given[name])) for name in ("z", "observed"))

    def run() -> None:
        with torch.inference_mode():
            sampler(network, z, observed, case.steps)

    return run


def _networks(case: Case) -> dict[str, nn.Module]:
    """Return the PyTorch forms of a network, none of them run yet."""
    networks = {"torch": same_network(case), COMPILED: torch.compile(same_network(case))}
    if case.network.startswith("unet"):
        networks["torch, channels last"] = same_network(case).to(memory_format=torch.channels_last)
    return networks


# MARK: The same network


def same_network(case: Case) -> nn.Module:
    """Return the network of a case in PyTorch, after checking that it computes the same.

    Raises:
      SbmError: if the network has no PyTorch version here.
      ValueError: if the outputs differ by more than `TOLERANCE`.
    """
    model = make_model(case.network)
    params = make_params(model, case.modalities)
    module = counterpart(model.network, params, case.modalities, LATENT_SIZE)
    difference = output_difference(model, params, module, case.modalities)
    if difference > TOLERANCE:
        raise ValueError(f"{case.network}: the outputs in JAX and PyTorch differ by {difference:.1e} of the largest.")
    return module


def output_difference(model: ScoreModel, params: Params, module: nn.Module, modalities: int) -> float:
    """Return the largest difference between the two networks' outputs, relative to the largest output."""
    generator = np.random.default_rng(0)
    z = generator.normal(size=(8, modalities, LATENT_SIZE)).astype(np.float32)
    t = generator.uniform(size=8).astype(np.float32)
    observed = np.zeros(z.shape[:2], bool)
    times = np.broadcast_to(t[:, None], observed.shape)
    ours = np.asarray(jax.jit(model.network.apply)({"params": params}, z, times, observed))
    with torch.inference_mode():
        theirs = module(*map(torch.from_numpy, (z, t, observed))).numpy()
    return float(np.abs(ours - theirs).max() / np.abs(ours).max())
