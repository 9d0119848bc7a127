"""Progress of long steps: a bar with rate and time left on a capable terminal, occasional lines elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 15.0

Advance = Callable[[int], None]


@contextmanager
def progress_bar(label: str, total: int, unit: str = "steps", done: int = 0) -> Iterator[Advance]:
    """Show the progress of one long step.

    Args:
      label: what is being done.
      total: number of units in all.
      unit: their name.
      done: units done before, in an earlier run.

    Yields:
      A function to call with the number of units just done.
    """
    console = Console()
    if console.is_terminal and not console.is_dumb_terminal:
        columns = [
            TextColumn("{task.description:<28}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(unit + " {task.fields[rate]}"),
            TimeRemainingColumn(),
        ]
        with Progress(*columns, console=console) as bars:
            task = bars.add_task(label, total=total, completed=done, rate="")
            start, count = time.monotonic(), 0

            def advance(number: int) -> None:
                nonlocal count
                count += number
                bars.update(task, advance=number, rate=f"{count / (time.monotonic() - start):.1f}/s")

            yield advance
        return
    yield from _lines(label, total, unit, done)


def _lines(label: str, total: int, unit: str, done: int) -> Iterator[Advance]:
    start = shown = time.monotonic()
    count = 0

    def advance(number: int) -> None:
        nonlocal count, shown
        count += number
        now = time.monotonic()
        if now - shown < SECONDS_BETWEEN_LINES:
            return
        shown = now
        rate = count / (now - start)
        left = (total - done - count) / rate
        print(f"{label}: {done + count}/{total} {unit}, {rate:.1f}/s, {left:.0f} s left", flush=True)

    yield advance
    print(f"{label}: done, {count} {unit} in {time.monotonic() - start:.1f} s", flush=True)
