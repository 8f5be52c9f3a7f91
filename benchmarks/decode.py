"""Images per second and core of `--decode exact` and `--decode fast` against `cv2.imread` and resizing; errors of fast.

    python benchmarks/decode.py

Radiographs of 3056 x 2544 pixels (enlarged phantom images with noise of three strengths, files of about 0.3 to 2 MB;
MIMIC-CXR-JPG has 1.5 MB per image), from the page cache, on one core. The methods alternate within each round; the best
round counts for each.

    python benchmarks/decode.py --guarded

Cost of decoding DICOM files in a guarded child process: each file is decoded alternately in this process and in the child,
and the median over the rounds counts. CPU time is that of both processes, so it is valid on a busy machine too. Phantom
files of all compressions, at the phantom's own size and at the size of the JPEGs.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from machine import keep
from medst.cohort import images
from medst.cohort.images import Reading, read_square
from medst.cohort.resize import fit, resize
from medst_phantom.anatomy import sample_anatomy
from medst_phantom.dicom import deepen, style_of, write_dicom
from medst_phantom.radiograph import render_study, sample_acquisition

HEIGHT, WIDTH = 3056, 2544
KINDS = {"smooth": (0.0, 90), "usual": (1.5, 95), "noisy": (3.0, 95)}
"""Noise in grey levels, JPEG quality."""


def make(folder: Path, count: int) -> dict[str, list[Path]]:
    """Files of each kind, by kind."""
    files: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for seed in range(count):
        rng = np.random.default_rng(seed)
        (small,) = render_study(sample_anatomy(rng), [], [sample_acquisition("PA" if seed % 2 else "LATERAL", rng)])
        large = cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.float32)
        for kind, (noise, quality) in KINDS.items():
            path = folder / f"{kind}-{seed}.jpg"
            picture = np.clip(large + rng.normal(0, noise, large.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
            files[kind].append(path)
    return files


def usual(path: Path) -> np.ndarray:
    """Full decoding and resizing with OpenCV, without any check."""
    return resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))


def scaled(path: Path) -> np.ndarray:
    """OpenCV's scaled decoding and resizing, without any check."""
    picture = cv2.imread(str(path), cv2.IMREAD_REDUCED_GRAYSCALE_8)
    return cv2.resize(picture, fit(HEIGHT, WIDTH)[::-1], interpolation=cv2.INTER_AREA)


WAYS: dict[str, Callable[[Path], object]] = {
    "imread and resize": usual,
    "decode exact": read_square,
    "scaled imread and resize": scaled,
    "decode fast": lambda path: read_square(path, Reading(decode="fast")),
}


def make_dicom(folder: Path, count: int, size: tuple[int, int] | None) -> list[Path]:
    """DICOM files in all styles, at this height and width or as the phantom draws them."""
    paths = [folder / f"{number}.dcm" for number in range(count)]
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        (picture,) = render_study(sample_anatomy(rng), [], [sample_acquisition("PA", rng)])
        if size is not None:
            picture = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_CUBIC)
        picture = np.ascontiguousarray(picture[: picture.shape[0] // 2 * 2])
        style = style_of(number)
        write_dicom(path, deepen(picture, style.bits, rng), style, number=number, view="PA")
    return paths


def cpu_seconds() -> float:
    """CPU time of this process and its guarded child, on Linux."""
    child = images._child()._child
    clock = 0.0 if child is None else time.clock_gettime((~child.pid << 3) | 2)  # the CPU clock of that process
    return time.process_time() + clock


def guard(rounds: int) -> None:
    """Measure and print the cost of the guard."""
    found = {}
    for name, count, size in (("phantom size", 200, None), (f"{HEIGHT} x {WIDTH}", 24, (HEIGHT, WIDTH))):
        with tempfile.TemporaryDirectory() as folder:
            paths = make_dicom(Path(folder), count, size)
            read_square(paths[0])  # imports pydicom
            images._child().close()
            start = time.perf_counter()
            images.read_guarded(paths[0])
            first = time.perf_counter() - start
            ways = (read_square, images.read_guarded)
            taken = np.zeros((2, len(ways), rounds, len(paths)))
            for turn in range(rounds):
                for number, path in enumerate(paths):
                    for way in ((0, 1), (1, 0))[(turn + number) % 2]:
                        start = np.array((cpu_seconds(), time.perf_counter()))
                        ways[way](path)
                        taken[:, way, turn, number] = np.array((cpu_seconds(), time.perf_counter())) - start
            found[name] = {
                "files": count,
                "rounds": rounds,
                "first call, which starts the child, ms": round(first * 1e3),
            }
            for clock, (direct, guarded) in zip(("CPU", "wall"), np.median(taken, axis=2), strict=True):
                found[name][clock] = {
                    "direct, ms per file": round(float(direct.mean()) * 1e3, 2),
                    "guarded, ms per file": round(float(guarded.mean()) * 1e3, 2),
                    "guarded over direct": round(float(guarded.sum() / direct.sum()), 3),
                    "median difference, ms": round(float(np.median(guarded - direct)) * 1e3, 2),
                }
            print(name, found[name])
    keep("decode_guarded", {"sets": found})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=6, help="of each kind")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--guarded", action="store_true", help="measure the cost of the guarded child process")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.guarded:
        guard(arguments.rounds)
        return
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, paths in make(Path(folder), arguments.images).items():
            rates = dict.fromkeys(WAYS, 0.0)
            for _ in range(arguments.rounds):
                for name, way in WAYS.items():
                    start = time.perf_counter()
                    for path in paths:
                        way(path)
                    rates[name] = max(rates[name], len(paths) / (time.perf_counter() - start))
            exact = [read_square(path)[0].astype(int) for path in paths]
            fast = [read_square(path, Reading(decode="fast"))[0].astype(int) for path in paths]
            apart = np.abs(np.stack(exact) - np.stack(fast))
            found[kind] = {
                "megabytes an image": round(sum(path.stat().st_size for path in paths) / len(paths) / 1e6, 2),
                "images a second and core": {name: round(rate, 1) for name, rate in rates.items()},
                "times imread and resize": {
                    name: round(rate / rates["imread and resize"], 2) for name, rate in rates.items()
                },
                "fast minus exact, grey levels": {
                    "mean": round(float(apart.mean()), 3),
                    "99.9th percentile": float(np.percentile(apart, 99.9)),
                    "worst": int(apart.max()),
                },
            }
            print(kind, found[kind])
    keep("decode", {"pixels": [HEIGHT, WIDTH], "kinds": found})


if __name__ == "__main__":
    main()
