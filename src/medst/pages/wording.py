"""How pages write names, numbers and spans of time."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

UNSCALED = ("auroc", "average precision", "f1", "macro auroc")
"""Metrics that are written as numbers up to 1; all others are shares, in per cent."""


def readable(name: str) -> str:
    """The name of a column, task or finding as people read it.

    >>> readable("pleural_effusion")
    'Pleural effusion'
    """
    words = name.replace("_", " ").replace("-", " ")
    return words[:1].upper() + words[1:]


def percent(value: float) -> str:
    """A share in per cent."""
    return f"{100 * value:.1f} %"


def metric_format(metric: str) -> Callable[[float], str]:
    """The function that writes values of a metric.

    >>> metric_format("macro accuracy")(0.6124), metric_format("auroc")(0.6124)
    ('61.2 %', '0.612')
    """
    return "{:.3f}".format if metric.startswith(UNSCALED) else percent


def difference_format(metric: str) -> Callable[[float], str]:
    """The function that writes differences of a metric.

    >>> difference_format("macro accuracy")(-0.0124), difference_format("auroc")(0.0124)
    ('-1.2 points', '+0.012')
    """
    return "{:+.3f}".format if metric.startswith(UNSCALED) else lambda value: f"{100 * value:+.1f} points"


def metric_name(metric: str, folds: int | None = None) -> str:
    """The name of a metric, with its number of folds.

    >>> metric_name("macro accuracy", 5), metric_name("auroc")
    ('Macro accuracy, 5 folds', 'AUROC')
    """
    name = metric.replace("auroc", "AUROC").replace("f1", "F1")
    return (name[:1].upper() + name[1:]) + (f", {folds} folds" if folds else "")


def day_written(file: Path) -> str:
    """The day when a file was last written, yyyy-mm-dd in UTC."""
    return f"{datetime.fromtimestamp(file.stat().st_mtime, UTC):%Y-%m-%d}"


def time_span(seconds: float) -> str:
    """A span of time in words, at the precision that matters to a reader.

    >>> time_span(600), time_span(7 * 3600), time_span(26 * 3600), time_span(90 * 86400), time_span(900 * 86400)
    ('10 minutes', '7 hours', '1 day', '3 months', '2.5 years')
    """
    days = seconds / 86400
    if seconds < 5400:
        count, unit = f"{seconds / 60:.0f}", "minute"
    elif days < 1:
        count, unit = f"{seconds / 3600:.0f}", "hour"
    elif days < 60:
        count, unit = f"{days:.0f}", "day"
    elif days < 700:
        count, unit = f"{days / 30.44:.0f}", "month"
    else:
        count, unit = f"{days / 365.25:.1f}", "year"
    return f"{count} {unit}{'' if count == '1' else 's'}"
