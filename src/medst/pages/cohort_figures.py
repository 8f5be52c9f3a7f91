"""The few figures of the page: bars of counts, as inline SVG."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from medst.pages.figure_style import ACCENT, INK, MUTED, new_figure, plain, to_svg


def upright(starts: Sequence[float], rows: Sequence[int], *, label: str, key: str, alt: str) -> Markup:
    """A histogram of equal bins.

    Args:
        starts: where each bin begins.
        rows: how many are in it.
        label: of the axis of numbers.
        key: names the figure's ids.
        alt: what it shows, in a sentence.
    """
    figure, axes = new_figure(480, 200)
    width = starts[1] - starts[0] if len(starts) > 1 else 1.0
    axes.bar(starts, rows, width=width * 0.92, align="edge", color=ACCENT)
    axes.set_xlabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.grid(axis="y")
    axes.tick_params(length=0)
    return to_svg(figure, alt, key)


def lying(counts: Mapping[str, int], *, key: str, alt: str) -> Markup:
    """A bar for each name, with its count."""
    figure, axes = new_figure(480, 30 + 30 * len(counts))
    most = max([*counts.values(), 1])
    for y, count in enumerate(counts.values()):
        axes.barh(y, count, height=0.62, color=ACCENT)
        axes.annotate(f"{count:,}", (count, y), xytext=(6, 0), textcoords="offset points", va="center", color=INK)
    axes.set_yticks(range(len(counts)), list(counts), fontsize=11)
    axes.invert_yaxis()
    axes.set_xlim(0, most * 1.16)
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    return to_svg(figure, alt, key)


def prevalence(shares: Mapping[str, Mapping[str, float]], *, key: str, alt: str) -> Markup:
    """For each label the share of studies that say present (full), uncertain (paler) and absent (grey)."""
    figure, axes = new_figure(560, 36 + 26 * len(shares))
    for y, answers in enumerate(shares.values()):
        start = 0.0
        for name, colour, alpha in (("present", ACCENT, 1.0), ("uncertain", ACCENT, 0.45), ("absent", MUTED, 0.45)):
            axes.barh(y, answers[name], left=start, height=0.66, color=colour, alpha=alpha)
            start += answers[name]
    axes.set_yticks(range(len(shares)), [plain(name) for name in shares], fontsize=11)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")
    axes.spines["bottom"].set_visible(False)
    axes.tick_params(length=0)
    return to_svg(figure, alt, key)
