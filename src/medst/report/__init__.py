"""A run, its results and a few patients over time as one HTML page: `build`."""

from medst.report.page import build

__all__ = ["build"]
