"""The output of a run: results as JSON, a table on the terminal, and one self-contained HTML page."""

from sbm_jax.report.choices import paper_of
from sbm_jax.report.html import write_report
from sbm_jax.report.results import device, read_results, versions, write_results
from sbm_jax.report.terminal import print_table
from sbm_jax.report.warnings import find_warnings

__all__ = [
    "device",
    "find_warnings",
    "paper_of",
    "print_table",
    "read_results",
    "versions",
    "write_report",
    "write_results",
]
