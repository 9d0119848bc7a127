"""The page of the explorer, built from Gradio components."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from sbm_jax.data import row_files
from sbm_jax.errors import SbmError
from sbm_jax.explore import show
from sbm_jax.explore.settings import MOST_SAMPLES, MOST_STEPS, Settings, restored
from sbm_jax.explore.work import Work
from sbm_jax.formats import make_format
from sbm_jax.formats.category import Category
from sbm_jax.types import Modality

WAITING = 32
"""The number of calls that may wait in the queue; further ones are refused."""

BEFORE = "Samples appear here. The first ones take longer, because a program is compiled."
"""The text shown until there are samples."""

LONGEST_TEXT = 5000
"""The largest number of characters of a typed text."""


class Page:
    """The components of the page, and their event handlers.

    Attributes:
      blocks: Gradio's app.
    """

    def __init__(self, work: Work, uploads: Path):
        """Lay out the page.

        Args:
          work: the work directory to explore.
          uploads: the directory of uploaded files.
        """
        self._work, self._uploads = work, uploads
        self.blocks = gr.Blocks(title=f"Explore {work.name}", analytics_enabled=False, delete_cache=(600, 3600))
        with self.blocks:
            gr.Markdown(f"## {work.name}\nChoose what is given and what to generate, and press *Generate*.")
            with gr.Row():
                with gr.Column(scale=2, min_width=320):
                    self._lay_out_settings()
                with gr.Column(scale=3, min_width=320):
                    result = gr.HTML(show.notes([BEFORE]))
            self._connect(result)
        self.blocks.queue(max_size=WAITING, default_concurrency_limit=1)

    # MARK: Layout

    def _lay_out_settings(self) -> None:
        work, chosen = self._work, self._work.defaults
        names, last = list(work.choices.modalities), work.choices.num_rows - 1
        self._row = gr.Number(chosen.row, label=f"Held-out row, 0 to {last}", precision=0, visible=last >= 0)
        self._preview = gr.HTML(self._preview_of(chosen.row))
        self._given = gr.CheckboxGroup(names, value=list(chosen.given), label="Given")
        self._targets = gr.CheckboxGroup(names, value=list(chosen.targets), label="To generate")
        self._button = gr.Button("Generate", variant="primary")
        with gr.Accordion("Sampler", open=False):
            with gr.Row():
                self._samples = gr.Slider(1, MOST_SAMPLES, chosen.samples, step=1, label="Samples", min_width=140)
                self._seed = gr.Number(chosen.seed, label="Seed", precision=0, min_width=140)
            self._system = gr.Dropdown(list(work.choices.systems), value=chosen.system, label="System")
            self._solver = gr.Dropdown(list(work.choices.solvers), value=chosen.solver, label="Solver")
            with gr.Row():
                self._steps = gr.Number(chosen.steps, label=f"Steps, 1 to {MOST_STEPS}", precision=0, min_width=140)
                self._strength = gr.Number(
                    chosen.strength, label="Guidance strength", placeholder="the config's", min_width=140
                )
        with gr.Accordion("Your own data", open=last < 0):
            gr.Markdown("Data given here replace those of the held-out row, and are ticked as given.")
            self._own = [self._own_input(modality) for modality in work.modalities]

    def _own_input(self, modality: Modality) -> gr.components.Component:
        """Return the input component for a row of a modality."""
        values = make_format(modality)
        if isinstance(values, Category):
            classes = [str(name) for name in values.options.classes]
            return gr.Dropdown(
                [("none of my own", ""), *((name, name) for name in classes)], value="", label=modality.name
            )
        if values.is_text:
            return gr.Textbox(label=modality.name, placeholder="a text", max_length=LONGEST_TEXT)
        known = list(row_files.suffixes(modality))
        label = f"{modality.name}, {' x '.join(map(str, modality.shape))} ({', '.join(known)})"
        return gr.File(label=label, file_types=known, height=120)

    @property
    def _components(self) -> list[gr.components.Component]:
        """The components of `Settings`, in the order of its fields."""
        return [
            *(self._system, self._row, self._given, self._targets, self._solver),
            *(self._steps, self._strength, self._samples, self._seed),
        ]

    # MARK: Events

    def _connect(self, result: gr.HTML) -> None:
        quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        self._row.change(self._preview_of, self._row, self._preview, **quiet)
        for modality, own in zip(self._work.modalities, self._own, strict=True):
            own.change(_ticked(modality.name), [self._given, own], self._given, **quiet)
        self._button.click(self._generate, [*self._components, *self._own], result, api_name="generate")
        self.blocks.load(self._restore, None, [*self._components, self._preview, result], **quiet)

    def _preview_of(self, number: float | None) -> str:
        """Return a held-out row as HTML."""
        if self._work.lacks_rows:
            return show.notes([f"There are no held-out rows: {self._work.lacks_rows}"])
        try:
            return show.row(self._work.modalities, self._work.row(None if number is None else int(number)))
        except SbmError as error:
            return show.error(str(error))

    def _restore(self, request: gr.Request) -> list[Any]:
        """Return the values of all components from the settings in the link."""
        query = dict(request.query_params)
        settings, wrong = restored(query, self._work.defaults, self._work.choices)
        told = [f"The link is not quite valid: {message}" for message in wrong]
        result = show.notes(told or [BEFORE])
        chosen = [list(value) if isinstance(value, tuple) else value for value in vars(settings).values()]
        return [*chosen, self._preview_of(settings.row), result]

    def _generate(self, *values: Any) -> str:
        """Return samples as HTML, or an error."""
        number = len(self._components)
        try:
            settings = _settings(values[:number])
            own = self._read_own(values[number:], settings.given)
            found = self._work.draw(settings, own)
            return show.drawn(self._work.modalities, found, self._work.row(settings.row), settings)
        except SbmError as error:
            return show.error(str(error))

    def _read_own(self, values: Sequence[str | None], given: Sequence[str]) -> dict[str, Any]:
        """Return the user's own rows that are ticked as given.

        Raises:
          SbmError: if one cannot be read, or is not an uploaded file.
        """
        found = {}
        for modality, value in zip(self._work.modalities, values, strict=True):
            if not value or modality.name not in given:
                continue
            form = make_format(modality)
            if form.is_text or isinstance(form, Category):
                found[modality.name] = row_files.row_of_text(modality, value[:LONGEST_TEXT])
            else:
                found[modality.name] = self._read_upload(modality, Path(value))
        return found

    def _read_upload(self, modality: Modality, path: Path) -> Any:
        """Read the row in an uploaded file; messages contain only its name, not its path."""
        if not path.resolve().is_relative_to(self._uploads.resolve()):
            raise SbmError(f"{path.name} is not an uploaded file; expected one. Upload it.")
        try:
            return row_files.read_row(modality, path)
        except SbmError as error:
            raise SbmError(str(error).replace(str(path), path.name)) from error


def _ticked(name: str):
    """Return a handler that ticks a modality as given when the user supplies a row of it."""

    def ticked(given: list[str], value: str | None) -> list[str]:
        return [*given, name] if value and name not in given else given

    return ticked


def _settings(values: Sequence[Any]) -> Settings:
    """Return the chosen settings.

    Raises:
      SbmError: if a required value is empty.
    """
    system, row, given, targets, solver, steps, strength, samples, seed = values
    for name, value in (("Steps", steps), ("Samples", samples), ("Seed", seed)):
        if value is None:
            raise SbmError(f"{name} is empty; expected a whole number. Enter one.")
    whole = None if row is None else int(row)
    chosen = tuple(given or ()), tuple(targets or ())
    return Settings(system, whole, *chosen, solver, int(steps), strength, int(samples), int(seed))
