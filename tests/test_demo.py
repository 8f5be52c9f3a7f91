"""A small demo, interrupted by Ctrl-C in the middle, resumes and ends with a report."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SMALL = ("--patients", "140", "--epochs", "2")


def start(out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "medst", "demo", str(out), *SMALL]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def test_an_interrupted_demo_resumes_and_ends_with_its_report(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    process = start(out)
    wait_for(out / "run" / "metrics.csv", process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert not (out / "report.html").exists()

    process = start(out)
    printed, said = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    page = (out / "report.html").read_text()
    results = json.loads((out / "run" / "results.json").read_text())
    assert results["protocol"] == "strict"
    # So few patients may leave less than five of each progression.
    assert {row["task"] for row in results["results"] + results["left_out"]} == {"temporal-image", "temporal-text"}
    [lead] = [lead for lead in results["leads"] if (lead["task"], lead["finding"]) == ("temporal-text", "all")]
    lines = printed.splitlines()
    assert f"{lead['value']:+.3f}" in next(line for line in lines if line.startswith("  all "))
    assert any(line.startswith(("temporal-image", "Not measured: temporal-image")) for line in lines)
    assert f"Report: {out / 'report.html'}" in lines
    assert "not a medical device" in page


@pytest.mark.slow
def test_a_demo_that_is_killed_at_random_moments_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    calm, disturbed = tmp_path / "calm", tmp_path / "disturbed"
    assert start(calm).wait(timeout=280) == 0
    random.seed(os.getpid())
    kills = 0
    while True:
        process = start(disturbed)
        try:
            process.wait(timeout=random.uniform(3, 25) if kills < 6 else 280)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            time.sleep(2)  # orphaned workers finish what they have at hand
            kills += 1
            continue
        assert process.returncode == 0, process.communicate()
        break
    assert kills > 0
    for name in ("cohort", "comparisons"):
        for file in ("cohort.json", "images.npy", "images.parquet"):
            assert (calm / name / file).read_bytes() == (disturbed / name / file).read_bytes(), (name, file)
    assert (calm / "run" / "results.json").read_bytes() == (disturbed / "run" / "results.json").read_bytes()
    assert (calm / "run" / "last" / "model.safetensors").read_bytes() == (
        disturbed / "run" / "last" / "model.safetensors"
    ).read_bytes()
