"""Results as HTML pages: `build` draws one run with its patients, `compare` any number of runs, `tables_of` their tables."""

from medst.report.comparison import compare, tables_of
from medst.report.page import build

__all__ = ["build", "compare", "tables_of"]
