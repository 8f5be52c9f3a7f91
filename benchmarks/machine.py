"""What a benchmark ran on, and where its figures go."""

import json
import platform
from pathlib import Path
from typing import Any

from medst import __version__

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """The machine and the versions that matter."""
    import cv2
    import joblib
    import numpy
    import polars

    try:
        model = next(
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        )
    except (OSError, StopIteration):
        model = platform.processor()
    return {
        "cpu": model,
        "cores": joblib.cpu_count(),
        "python": platform.python_version(),
        "medst": __version__,
        "numpy": numpy.__version__,
        "opencv": cv2.__version__,
        "polars": polars.__version__,
    }


def keep(name: str, figures: dict[str, Any]) -> None:
    """Write benchmarks/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **figures}, indent=1) + "\n")
    print(path)
