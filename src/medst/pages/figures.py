"""The figures of all pages as inline SVG, small enough to be read on a phone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from medst.pages import figure_style as style
from medst.pages.line import Line
from medst.pages.wording import metric_format, metric_name, readable
from medst.recipes.objective import TERMS

CURVES = {"loss": "Total, weighted"} | {column: term.curve for column, term in TERMS.items()}
"""The columns of metrics.csv that are drawn, with the titles of their curves."""
CURVE_LEGEND = (
    ("training step", style.TRAINING_CURVE_COLOUR),
    ("running mean", style.MEAN_CURVE_COLOUR),
    ("validation, once per epoch", style.VALIDATION_CURVE_COLOUR),
)
_RUN_HEIGHT, _LINE_GAP = 20, 16


def learning_curves(metrics: Sequence[Mapping[str, str]]) -> list[tuple[str, Markup]]:
    """Title and figure of each loss in the rows of metrics.csv: training steps, their running mean, and validations."""
    figures = []
    for name, title in CURVES.items():
        rows = [(r["split"], float(r["step"]), float(r[name])) for r in metrics if r.get(name)]
        train, valid = (
            np.array([point for split, *point in rows if split == wanted]).reshape(-1, 2)
            for wanted in ("train", "valid")
        )
        if not len(train):
            continue
        figure, axes = style.new_figure(250, 160, grid="y")
        step, loss = train.T
        axes.plot(step, loss, color=style.TRAINING_CURVE_COLOUR, alpha=0.3, linewidth=0.8)
        axes.plot(step, running_mean(loss, max(1, len(loss) // 25)), color=style.MEAN_CURVE_COLOUR, linewidth=1.4)
        axes.plot(*valid.T, color=style.VALIDATION_CURVE_COLOUR, linewidth=1.6, marker="o", markersize=3.6)
        axes.set_ylim(*_limits(loss, valid[:, 1]))
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        alt = f"{title}: over {len(loss)} training steps from {loss[0]:.2f} to {loss[-1]:.2f}"
        alt += f", on the validation split from {valid[0, 1]:.2f} to {valid[-1, 1]:.2f}." if len(valid) else "."
        figures.append((title, style.to_svg(figure, alt)))
    return figures


def _limits(train: np.ndarray, valid: np.ndarray) -> tuple[float, float]:
    """Room for all validations and 99.5 % of the training steps; outliers would flatten everything else."""
    shown = np.concatenate([np.percentile(train, [0, 99.5]), valid])
    margin = 0.06 * (np.ptp(shown) + 1e-6)
    return float(shown.min() - margin), float(shown.max() + margin)


def running_mean(values: Float[np.ndarray, " step"], window: int) -> Float[np.ndarray, " step"]:
    """The mean of each value and up to `window` values before and after it.

    >>> running_mean(np.array([0.0, 3.0, 6.0, 6.0]), 1).tolist()
    [1.5, 3.0, 5.0, 6.0]
    """
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    start, stop = np.maximum(place - window, 0), np.minimum(place + window + 1, len(values))
    return (total[stop] - total[start]) / (stop - start)


def intervals(lines: Sequence[Line], names: Sequence[str], title: str) -> Markup:
    """A number of every run with its interval, beside its best baseline and chance.

    Args:
        lines: of one metric; each becomes a block with one mark per run.
        names: of the runs, in the order of each line's rows.
        title: of the benchmark.
    """
    block = len(names) * _RUN_HEIGHT + _LINE_GAP
    figure, axes = style.new_figure(480, 40 + block * len(lines), grid="x")
    values: list[float] = []
    for number, line in enumerate(lines):
        top, bottom = number * block, number * block + len(names) * _RUN_HEIGHT
        for run, row in enumerate(line.trained):
            if row is not None:
                values += _draw_run(axes, top + (run + 0.5) * _RUN_HEIGHT, run, row, line.best_baseline(run))
        axes.plot([line.chance] * 2, [top, bottom], color=style.INK, linewidth=1.4, linestyle=(0, (1.5, 1)))
        values.append(line.chance)
        axes.axhline(bottom + _LINE_GAP / 2, color=style.LINE, linewidth=0.6)
    style.name_rows(
        axes,
        [readable(line.finding) for line in lines],
        [number * block + len(names) * _RUN_HEIGHT / 2 for number in range(len(lines))],
    )
    axes.set_ylim(len(lines) * block - _LINE_GAP / 2, -_LINE_GAP / 2)
    margin = 0.06 * max(max(values) - min(values), 0.05)
    axes.set_xlim(max(0, min(values) - margin), min(1, max(values) + margin))
    written = metric_format(lines[0].metric)
    axes.xaxis.set_major_formatter(lambda value, _: written(value).replace(".0 %", " %"))
    alt = f"{title}, {metric_name(lines[0].metric)} of each run."
    for line in lines:
        rows = zip(names, line.trained, strict=True)
        values_of_runs = [f"{name} {written(row['value'])}" for name, row in rows if row is not None]
        alt += f" {readable(line.finding)}: {', '.join(values_of_runs)}, chance {written(line.chance)};"
    return style.to_svg(figure, alt.removesuffix(";") + ".")


def _draw_run(axes: Axes, y: float, run: int, row: dict[str, Any], best: tuple[str, float] | None) -> list[float]:
    """Draw one number, its interval and the best baseline's; returns the values that must fit in."""
    colour, marker = style.RUN_COLOURS[run % len(style.RUN_COLOURS)], style.RUN_MARKERS[run % len(style.RUN_MARKERS)]
    std = row["std"] or 0
    ends = (row["value"] - std, row["value"] + std) if row["low"] is None else (row["low"], row["high"])
    axes.plot(ends, [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    axes.plot(row["value"], y, marker=marker, markersize=7, color=colour)
    if best is None:
        return [*ends]
    axes.plot(best[1], y, marker=marker, markersize=6, color=style.MUTED, markerfacecolor="none")
    return [*ends, best[1]]


def calibration(bins: Sequence[tuple[float, float, int]], name: str) -> Markup:
    """The share of positives against the predicted probability; the diagonal is perfect calibration.

    Args:
        bins: mean probability, share of positives and number of images of each bin.
        name: of the run, the finding and the protocol.
    """
    figure, axes = style.new_figure(260, 260, grid="both")
    predicted, positive, count = np.array(bins, dtype=np.float64).T
    axes.plot([0, 1], [0, 1], color=style.MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(predicted, positive, color=style.CALIBRATION_CURVE_COLOUR, linewidth=1.5)
    axes.scatter(predicted, positive, s=16 + 120 * count / count.max(), color=style.CALIBRATION_CURVE_COLOUR, zorder=3)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_aspect("equal")
    axes.set_xlabel("predicted probability")
    axes.set_ylabel("share of positives")
    text = "; ".join(f"of {int(n)} at about {p:.2f}, {share:.0%} positive" for p, share, n in bins)
    return style.to_svg(figure, f"Calibration of {name}: {text}.")


def confusion(matrix: Integer[np.ndarray, "true predicted"], classes: Sequence[str], finding: str, name: str) -> Markup:
    """True classes down, predicted ones across; a cell shows a count, and the finding's colour the share of its row.

    `name` has the run, the finding and the protocol.
    """
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shown = [[str(count) for count in row] for row in matrix]
    figure, axes = _squares(250, share, shown, style.FINDING_COLOURS.get(finding, style.ACCENT), "predicted", "true")
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes, rotation=90, va="center")
    text = "; ".join(
        f"of {row.sum()} {label}, " + ", ".join(f"{n} predicted {c}" for n, c in zip(row, classes, strict=True))
        for label, row in zip(classes, matrix, strict=True)
    )
    return style.to_svg(figure, f"Confusion matrix of {name}: {text}")


def alignment(weights: Float[np.ndarray, "from to"], *, across: str, down: str, alt: str) -> Markup:
    """The weights of each study of a sequence on every study; rows sum to 1, the correct ones lie on the diagonal."""
    shown = [[f"{100 * weight:.0f}" if weight >= 0.005 else "" for weight in row] for row in weights]
    figure, axes = _squares(270, weights, shown, style.ACCENT, across, down)
    steps = range(len(weights))
    for step in steps:
        outline = Rectangle((step - 0.47, step - 0.47), 0.94, 0.94, fill=False, edgecolor=style.INK, linewidth=1.3)
        axes.add_patch(outline)
    numbers = [str(step + 1) for step in steps]
    axes.set_xticks(steps, numbers)
    axes.set_yticks(steps, numbers)
    return style.to_svg(figure, alt)


def _squares(
    side: int, share: Float[np.ndarray, "row column"], texts: list[list[str]], colour: str, across: str, down: str
) -> tuple[Figure, Axes]:
    """A heat map whose cells are as opaque as their share, so that it suits light and dark paper."""
    figure, axes = style.new_figure(side, side)
    rows, columns = share.shape
    for (y, x), opacity in np.ndenumerate(share):
        for face, alpha in ((style.LINE, 0.35), (colour, float(opacity))):
            axes.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor=face, alpha=alpha, linewidth=0))
        ink = "white" if opacity > 0.7 else style.INK
        axes.text(x, y, texts[y][x], ha="center", va="center", color=ink, fontsize=13 if columns <= 4 else 11)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    return figure, axes


def histogram(starts: Sequence[float], rows: Sequence[int], *, label: str, alt: str) -> Markup:
    """Upright bars, one per bin of equal width that begins at one of `starts`, with `label` below."""
    figure, axes = style.new_figure(480, 200, grid="y")
    width = starts[1] - starts[0] if len(starts) > 1 else 1.0
    axes.bar(starts, rows, width=width * 0.92, align="edge", color=style.BAR_COLOUR)
    axes.set_xlabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return style.to_svg(figure, alt)


def counts(rows: Mapping[str, int], *, alt: str) -> Markup:
    """One horizontal bar per name, with its count."""
    figure, axes = style.new_figure(480, 30 + 30 * len(rows), grid="x")
    bars = axes.barh(range(len(rows)), list(rows.values()), height=0.62, color=style.BAR_COLOUR)
    axes.bar_label(bars, fmt="{:,.0f}", padding=6, color=style.INK)
    style.name_rows(axes, list(rows))
    axes.set_xlim(0, max([*rows.values(), 1]) * 1.16)
    axes.set_xticks([])
    return style.to_svg(figure, alt)


def prevalence(shares: Mapping[str, Mapping[str, float]], *, alt: str) -> Markup:
    """The share of studies for which each label is present (full colour), uncertain (paler) and absent (grey)."""
    figure, axes = style.new_figure(560, 36 + 26 * len(shares), grid="x")
    looks = {"present": (style.BAR_COLOUR, 1), "uncertain": (style.BAR_COLOUR, 0.45), "absent": (style.MUTED, 0.45)}
    for y, answers in enumerate(shares.values()):
        start = 0.0
        for answer, (colour, alpha) in looks.items():
            axes.barh(y, answers[answer], left=start, height=0.66, color=colour, alpha=alpha)
            start += answers[answer]
    style.name_rows(axes, [readable(name) for name in shares])
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return style.to_svg(figure, alt)
