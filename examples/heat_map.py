"""Locate a phrase in your own picture.

    python examples/heat_map.py MODEL PICTURE "right pleural effusion" heat.png [--lateral PICTURE]

MODEL is a run's folder (medst-demo/run/last after `make demo`) or a released checkpoint; PICTURE a JPEG, PNG or DICOM.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

import medst
from medst.errors import MedstError
from medst.use import read_picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("picture", type=Path)
    parser.add_argument("phrase")
    parser.add_argument("out", type=Path)
    parser.add_argument("--lateral", type=Path)
    given = parser.parse_args()

    model = medst.load(given.model)
    frontal = read_picture(given.picture)
    lateral = None if given.lateral is None else read_picture(given.lateral)
    [found] = model.ground(model.encode_image(frontal, lateral), given.phrase)

    views = [(frontal, found.frontal)] + ([] if lateral is None else [(lateral, found.lateral)])
    tallest = max(picture.original.shape[0] / picture.original.shape[1] for picture, _ in views)
    figure = Figure(figsize=(4.2 * len(views) + 0.8, 4.2 * tallest + 0.5), layout="constrained")
    for axes, (picture, heat) in zip(figure.subplots(1, len(views), squeeze=False)[0], views, strict=True):
        axes.imshow(picture.original, cmap="gray")
        shown = axes.imshow(heat.pixels(), cmap="inferno", alpha=0.45)
        axes.set_axis_off()
    figure.colorbar(shown, ax=figure.axes, shrink=0.6, label="mean cosine of words and patch")
    figure.suptitle(f"“{given.phrase}”, similarity {found.similarity:.2f}")
    figure.savefig(given.out, dpi=110)
    print(f"{given.out}: similarity {found.similarity:.3f}, peak at (row, column) {found.frontal.peak}")


if __name__ == "__main__":
    try:
        main()
    except MedstError as error:
        raise SystemExit(str(error)) from None
