"""The figures of a cohort as inline SVG: bars of counts."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

from medst.pages.figure_style import BAR_COLOUR, INK, MUTED, name_rows, new_figure, to_svg
from medst.pages.wording import readable


def histogram(starts: Sequence[float], rows: Sequence[int], *, label: str, alt: str) -> Markup:
    """Upright bars, one per bin of equal width.

    Args:
        starts: the lower end of each bin.
        rows: the count in each bin.
        label: of the axis below.
        alt: what it shows, in a sentence.
    """
    figure, axes = new_figure(480, 200, grid="y")
    width = starts[1] - starts[0] if len(starts) > 1 else 1.0
    axes.bar(starts, rows, width=width * 0.92, align="edge", color=BAR_COLOUR)
    axes.set_xlabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return to_svg(figure, alt)


def counts(rows: Mapping[str, int], *, alt: str) -> Markup:
    """One horizontal bar per name, with its count."""
    figure, axes = new_figure(480, 30 + 30 * len(rows), grid="x")
    axes.barh(range(len(rows)), list(rows.values()), height=0.62, color=BAR_COLOUR)
    for y, count in enumerate(rows.values()):
        axes.annotate(f"{count:,}", (count, y), xytext=(6, 0), textcoords="offset points", va="center", color=INK)
    name_rows(axes, list(rows))
    axes.set_xlim(0, max([*rows.values(), 1]) * 1.16)
    axes.set_xticks([])
    return to_svg(figure, alt)


def prevalence(shares: Mapping[str, Mapping[str, float]], *, alt: str) -> Markup:
    """The share of studies for which each label is present (full colour), uncertain (paler) and absent (grey)."""
    figure, axes = new_figure(560, 36 + 26 * len(shares), grid="x")
    for y, answers in enumerate(shares.values()):
        start = 0.0
        for answer, colour, alpha in (
            ("present", BAR_COLOUR, 1),
            ("uncertain", BAR_COLOUR, 0.45),
            ("absent", MUTED, 0.45),
        ):
            axes.barh(y, answers[answer], left=start, height=0.66, color=colour, alpha=alpha)
            start += answers[answer]
    name_rows(axes, [readable(name) for name in shares])
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return to_svg(figure, alt)
