"""Call a trained model with many different settings in one process; report seconds, memory and memory maps.

    python -m sbm_jax.main --config=configs/quickstart.py:smoke --workdir=runs/smoke
    python -m benchmarks.many_settings --workdir=runs/smoke

Half of the settings differ only in the set of given modalities, and share a few programs; the others differ in the
numbers of rows, samples and steps, and compile one each.
"""

import argparse
import itertools
import json
import resource
import time
from pathlib import Path

import numpy as np

import sbm_jax
from sbm_jax.sampling import SamplerOptions


def settings(names: list[str], number: int):
    """Yield (given modalities, rows, samples, steps), all different."""
    sets = [chosen for size in range(len(names)) for chosen in itertools.combinations(names, size)]
    same = [(chosen, rows, 1, 10) for rows in (4, 8, 12, 16, 20) for chosen in sets][: number // 2]
    others = itertools.product(range(1, 11), range(1, 6), range(2, 9))
    yield from same
    for (rows, samples, steps), chosen in itertools.islice(
        zip(others, itertools.cycle(sets), strict=False), number - len(same)
    ):
        yield chosen, rows, samples, steps


def _maps() -> int | None:
    path = Path("/proc/self/maps")
    return len(path.read_text().splitlines()) if path.exists() else None


def main() -> None:
    """Print one line of JSON every tenth of the settings, and a summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="work directory of a finished run")
    parser.add_argument("--system", default=None, help="name of a system; default: the first")
    parser.add_argument("--number", type=int, default=300, help="number of settings")
    flags = parser.parse_args()
    model = sbm_jax.load(flags.workdir, flags.system)
    rng = np.random.default_rng(0)
    rows = {m.name: rng.uniform(size=(20, *m.shape)).astype(np.float32) for m in model.modalities}
    seconds, start = [], time.monotonic()
    for done, (chosen, num_rows, num_samples, num_steps) in enumerate(settings(list(rows), flags.number), start=1):
        before = time.monotonic()
        model.generate(
            {name: rows[name][:num_rows] for name in chosen},
            batch_size=num_rows,
            num_samples=num_samples,
            options=SamplerOptions(num_steps=num_steps),
        )
        seconds.append(time.monotonic() - before)
        if done % max(1, flags.number // 10) == 0:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
            told = {"settings": done, "seconds": time.monotonic() - start, "MiB": memory, "memory maps": _maps()}
            print(json.dumps({name: value and round(value, 1) for name, value in told.items()}), flush=True)
    quick = sum(one < 0.3 for one in seconds)
    print(json.dumps({"calls below 0.3 s": quick, "slowest, s": round(max(seconds), 1)}))


if __name__ == "__main__":
    main()
