"""Sphinx's configuration of the documentation: `sphinx-build -W -b html docs docs/_build`. Nothing is fetched."""

import dataclasses
import importlib
import inspect
import re
from typing import Any, ClassVar

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.util.docutils import SphinxDirective
from sphinx.util.math import get_node_equation_number

import sbm_jax
from sbm_jax.report.published import PAPERS

project = "sbm_jax"
author = "the authors of sbm_jax"
copyright = "the authors of sbm_jax, Apache-2.0"
version = release = sbm_jax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
nitpicky = False
default_role = "code"

html_theme = "furo"
html_title = f"sbm_jax {version}"
html_static_path = ["_static"]
html_css_files = ["own.css"]
html_math_renderer = "mathml"
html_copy_source = False

myst_enable_extensions = ["dollarmath", "deflist", "colon_fence", "fieldlist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # `-D nb_execution_mode=cache` runs the tutorials and shows what they print: half an hour
nb_execution_timeout = 3600
nb_execution_raise_on_error = True

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
napoleon_use_ivar = True
napoleon_use_rtype = False
napoleon_attr_annotations = False  # the signatures have them
smartquotes = False  # quotes delimit strings


# MARK: Equations


def _text(translator: Any, node: nodes.math) -> None:
    """Write an inline equation as MathML, which browsers render without a script."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _display(translator: Any, node: nodes.math_block) -> None:
    """Write a displayed equation as MathML."""
    number = get_node_equation_number(translator, node) if node["number"] else ""
    translator.body.append(translator.starttag(node, "div", CLASS="equation"))
    translator.body.append(tex2mathml(node.astext(), as_block=True))
    translator.body.append(f"<span>({number})</span></div>" if number else "</div>")
    raise nodes.SkipNode


# MARK: Docstrings

_LITERAL = re.compile(r"(``.+?``|`[^`]+`)")


def _as_text(*event: Any) -> None:
    """Escape plain text in docstrings that reStructuredText would interpret, such as ``s_`` and ``*``."""
    lines: list[str] = event[-1]  # modified in place
    for number, line in enumerate(lines):
        parts = _LITERAL.split(line)
        parts[::2] = [re.sub(r"([*|]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
        lines[number] = "".join(parts)


# MARK: Options


class Options(SphinxDirective):
    """A table of a dataclass's fields and their defaults, so that no page repeats a default by hand.

    Its arguments are the dataclass, as ``package.module:NAME``, and its group in the config.
    """

    required_arguments: ClassVar[int] = 2

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        (module, _, name), group = self.arguments[0].partition(":"), self.arguments[1]
        cls = getattr(importlib.import_module(module), name)
        told = {}
        for one in reversed(cls.__mro__):  # fields of a base class are documented there
            told |= _attributes(inspect.cleandoc(one.__doc__ or ""))
        lines = [f"| `{group}` | default | |", "|---|---|---|"]
        for field in dataclasses.fields(cls):
            lines.append(f"| `{field.name}` | {_default(field)} | {told.get(field.name, '')} |")
        return self.parse_text_to_nodes("\n".join(lines))


def _attributes(docstring: str) -> dict[str, str]:
    """Return the texts in the section ``Attributes:`` of a docstring, each as one line of Markdown."""
    found: dict[str, str] = {}
    section, name = docstring.partition("Attributes:\n")[2].split("\n\n")[0], ""
    for line in section.splitlines():
        if match := re.match(r"  (\w+): (.*)", line):
            name = match[1]
            found[name] = match[2]
        elif name:
            found[name] += f" {line.strip()}"
    plain = {name: re.sub(r"``(.+?)``", r"`\1`", text) for name, text in found.items()}
    return {name: text.replace("|", "\\|").replace("*", "\\*") for name, text in plain.items()}


def _default(field: dataclasses.Field) -> str:
    """Return the default of a field as Markdown; for a group of options, the name of its class."""
    value = field.default
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    if value is dataclasses.MISSING:
        return "must be given"
    return f"see `{type(value).__name__}`" if dataclasses.is_dataclass(value) else f"`{value!r}`"


# MARK: Published numbers


class PublishedTable(SphinxDirective):
    """A table of a paper's numbers on conditional generation, from the package's own record of them."""

    required_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        lines = ["| | coherence given the other modalities | FID |", "|---|---|---|"]
        for name, row in PAPERS[self.arguments[0]].conditional.items():
            cells = [f"{number.value:g} ± {number.std:g}" for number in (row.coherence, row.fid)]
            lines.append(f"| {row.name} (`{name}`) | {cells[0]} | {cells[1]} |")
        return self.parse_text_to_nodes("\n".join(lines))


def _public_names(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, ...]:
    """Call arrays in signatures `Array`, not by the module that JAX keeps them in."""
    del app, what, name, obj, options
    private = r"jax(lib\._jax|\.jaxlib\._jax)\.Array"
    return tuple(text and re.sub(private, "Array", text) for text in (signature, returns))


def setup(app: Sphinx) -> None:
    """Register the directives and writers above."""
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    app.add_directive("options", Options)
    app.add_directive("published", PublishedTable)
    app.add_html_math_renderer("mathml", (_text, None), (_display, None))
    app.connect("autodoc-process-signature", _public_names)
    app.connect("autodoc-process-docstring", _as_text, priority=400)  # before napoleon
