"""Trivial features tell nothing about the phantom's labels. `benchmarks/phantom_probes.py` prints the same at full size."""

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from medst_phantom.ms_cxr_t import sentence_rows


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import phantom_probes

    sys.modules.pop("machine", None)
    return phantom_probes


def outside(found: dict[str, float], bound: float) -> dict[str, float]:
    return {name: round(auroc, 3) for name, auroc in found.items() if not 1 - bound <= auroc <= bound}


def test_few_comparisons_and_sentences(probes):
    patients = probes.draw(250, 11)
    chosen = probes.compare(patients, 11)
    found = probes.comparison_probes(patients, chosen)
    severities = {name: auroc for name, auroc in found.items() if "severity" in name}
    assert len(severities) == 12
    assert not outside(severities, 0.56)
    assert not outside(found, 0.62)  # some 500 changes of 240 patients
    assert not outside(probes.sentence_probes(sentence_rows(np.random.default_rng(11))), 0.6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_at_least_5000_comparisons_and_sentences(probes, seed):
    patients = probes.draw(1700, seed)
    chosen = probes.compare(patients, seed)
    assert len(chosen) >= 5000
    assert not outside(probes.comparison_probes(patients, chosen), probes.BOUND)
    rows = sentence_rows(np.random.default_rng(seed), times=14)
    assert len(rows) >= 5000
    found = probes.sentence_probes(rows)
    assert not outside(found, probes.BOUND)
    overlap = {name: auroc for name, auroc in found.items() if name.endswith(("overlap", "cosine"))}
    assert not outside(overlap, 0.505)
