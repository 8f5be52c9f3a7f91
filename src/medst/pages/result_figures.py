"""The figures of the page: matplotlib in, inline SVG out. Small ones, so that they can be read on a phone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from medst.pages.figure_style import ACCENT, INK, LINE, MUTED, PAPER, finding_colour, new_figure, plain, to_svg
from medst.recipes.objective import TERMS

CURVES = {"loss": "Total, weighted"} | {column: term.curve for column, term in TERMS.items()}
"""The columns of metrics.csv that are drawn, with the titles of their curves."""


@dataclass(frozen=True)
class Bar:
    """A number beside what it is held against; `untrained` is None where no untrained model was measured."""

    finding: str
    value: float
    std: float | None
    untrained: float | None
    chance: float


def learning_curves(metrics: Sequence[Mapping[str, str]]) -> list[tuple[str, Markup]]:
    """A figure for each loss that the run has: training steps in grey, their running mean and the validations in colour.

    Args:
        metrics: rows of metrics.csv, as text.

    Returns:
        Title and figure of each.
    """
    figures = []
    for name, title in CURVES.items():
        split = {
            split: np.array(
                [(float(r["step"]), float(r[name])) for r in metrics if r["split"] == split and r.get(name)]
            ).reshape(-1, 2)
            for split in ("train", "valid")
        }
        if not len(split["train"]):
            continue
        figure, axes = new_figure(250, 160)
        step, loss = split["train"].T
        axes.plot(step, loss, color=MUTED, alpha=0.3, linewidth=0.8)
        axes.plot(step, running_mean(loss, max(1, len(loss) // 25)), color=INK, linewidth=1.4)
        axes.plot(*split["valid"].T, color=ACCENT, linewidth=1.6, marker="o", markersize=3.6)
        axes.set_ylim(*_limits(loss, split["valid"][:, 1]))
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.grid(axis="y")
        axes.tick_params(length=0)
        figures.append((title, to_svg(figure, _curve_alt(title, loss, split["valid"][:, 1]), f"curve-{name}")))
    return figures


def _limits(train: np.ndarray, valid: np.ndarray) -> tuple[float, float]:
    """Room for all validations and all but the wildest training steps, which would flatten everything else."""
    shown = np.concatenate([np.percentile(train, [0, 99.5]), valid])
    margin = 0.06 * (np.ptp(shown) + 1e-6)
    return float(shown.min() - margin), float(shown.max() + margin)


def running_mean(values: Float[np.ndarray, " step"], window: int) -> Float[np.ndarray, " step"]:
    """The mean of each value and those up to `window` steps before and behind it.

    >>> running_mean(np.array([0.0, 3.0, 6.0, 6.0]), 1).tolist()
    [1.5, 3.0, 5.0, 6.0]
    """
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    start, stop = np.maximum(place - window, 0), np.minimum(place + window + 1, len(values))
    return (total[stop] - total[start]) / (stop - start)


def bars(rows: Sequence[Bar], *, percent: bool, key: str, alt: str) -> Markup:
    """Horizontal bars: the model in colour, the untrained one as a thin line below, chance as an upright tick.

    Args:
        rows: from top to bottom.
        percent: whether to write the values in per cent.
        key: names the figure's ids.
        alt: what it shows, in a sentence.
    """
    figure, axes = new_figure(380, 40 + 42 * len(rows))
    for y, row in enumerate(rows):
        colour = finding_colour(row.finding, ACCENT)
        axes.barh(y, row.value, height=0.42, color=colour)
        if row.std:
            axes.plot([row.value - row.std, row.value + row.std], [y, y], color=INK, linewidth=1.2)
        if row.untrained is not None:
            axes.barh(y + 0.33, row.untrained, height=0.12, color=MUTED, alpha=0.7)
        axes.plot([row.chance, row.chance], [y - 0.32, y + 0.45], color=INK, linewidth=1.6, linestyle=(0, (1.5, 1)))
        right = max(row.value + (row.std or 0), row.chance)
        said = f"{100 * row.value:.1f} %" if percent else f"{row.value:.3f}"
        axes.annotate(
            said,
            (right, y),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=12,
            weight="bold",
            color=INK,
        )
    axes.set_yticks(range(len(rows)), [plain(row.finding) for row in rows], fontsize=12)
    for label in axes.get_yticklabels():
        label.set_color(INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    ticks = np.linspace(0, 1, 6)
    axes.set_xticks(ticks, [f"{100 * tick:.0f} %" if percent else f"{tick:.1f}" for tick in ticks])
    axes.grid(axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    return to_svg(figure, alt, key)


def confusion(matrix: Integer[np.ndarray, "true predicted"], classes: Sequence[str], finding: str, key: str) -> Markup:
    """True progressions down, predicted ones across; a cell's colour is its share of its row, its number a count."""
    figure, axes = new_figure(250, 250)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    cells(axes, share, [[str(count) for count in row] for row in matrix], finding_colour(finding, ACCENT))
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes, rotation=90, va="center")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    alt = f"Confusion matrix of {plain(finding).lower()}: " + "; ".join(
        f"of {row.sum()} {name}, " + ", ".join(f"{n} predicted {c}" for n, c in zip(row, classes, strict=True))
        for name, row in zip(classes, matrix, strict=True)
    )
    return to_svg(figure, alt, key)


def alignment(weights: Float[np.ndarray, "from to"], *, across: str, down: str, key: str, alt: str) -> Markup:
    """Weights of every study of a sequence (down) on every study (across); what is right lies on the diagonal.

    Args:
        weights: rows that sum to 1.
        across: what the columns are.
        down: what the rows are.
        key: names the figure's ids.
        alt: what it shows, in a sentence.
    """
    steps = len(weights)
    figure, axes = new_figure(270, 270)
    shown = [[f"{100 * weight:.0f}" if weight >= 0.005 else "" for weight in row] for row in weights]
    cells(axes, weights, shown, ACCENT)
    for step in range(steps):
        axes.add_patch(Rectangle((step - 0.47, step - 0.47), 0.94, 0.94, fill=False, edgecolor=INK, linewidth=1.3))
    axes.set_xticks(range(steps), [str(step + 1) for step in range(steps)])
    axes.set_yticks(range(steps), [str(step + 1) for step in range(steps)])
    axes.set_xlabel(across)
    axes.set_ylabel(down)
    return to_svg(figure, alt, key)


def cells(axes: Axes, share: Float[np.ndarray, "row column"], said: list[list[str]], colour: str) -> None:
    """A heat map whose cells are as opaque as their share, so that it goes with any paper."""
    rows, columns = share.shape
    for y in range(rows):
        for x in range(columns):
            axes.add_patch(Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor=LINE, alpha=0.35, linewidth=0))
            axes.add_patch(
                Rectangle((x - 0.47, y - 0.47), 0.94, 0.94, facecolor=colour, alpha=float(share[y, x]), linewidth=0)
            )
            ink = PAPER if share[y, x] > 0.55 else INK
            size = 13 if columns <= 4 else 11
            axes.text(x, y, said[y][x], ha="center", va="center", color=ink, fontsize=size)
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)


def _curve_alt(title: str, train: np.ndarray, valid: np.ndarray) -> str:
    said = f"{title}: over {len(train)} training steps from {train[0]:.2f} to {train[-1]:.2f}"
    return said + (f", on the validation split from {valid[0]:.2f} to {valid[-1]:.2f}." if len(valid) else ".")
