"""What a design can detect, against simulation; spreads of pilots and Holm's correction, by hand."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from medst.ablate.design import (
    Design,
    Spread,
    detectable,
    holm,
    read_design,
    settle,
    spread_of_pilot,
    spread_of_reference,
)
from medst.errors import MedstError
from medst.recipes.variants import BY_NAME_ALONE, OWN_REPORT, PROGRESSION, REPORTS, SENTENCES, VARIANTS


@pytest.mark.parametrize(("seeds", "questions"), [(2, 1), (3, 12), (5, 1), (5, 12), (8, 12)])
def test_the_detectable_difference_is_found_in_80_of_100_simulated_ablations(seeds: int, questions: int) -> None:
    """The smallest of `questions` p-values meets Holm's first step; here one question alone has a difference."""
    many = 40_000
    drawn = np.random.default_rng(1).normal(detectable(seeds, questions), 1, (many, seeds))
    p = stats.ttest_1samp(drawn, 0, axis=1).pvalue
    assert np.mean(p <= 0.05 / questions) == pytest.approx(0.8, abs=0.01)  # 5 standard errors


def test_more_seeds_detect_less_and_more_questions_more() -> None:
    assert detectable(5, 12) == pytest.approx(3.31, abs=0.01)
    assert detectable(8, 12) < detectable(5, 12) < detectable(3, 12) < detectable(3, 75)
    # The exact t test of one question with 20 pairs; Cohen's table for d = 0.66 gives n = 20.
    assert detectable(20, 1) == pytest.approx(0.66, abs=0.01)


def test_holm_by_hand() -> None:
    # 4 x 0.01, 3 x 0.02, 2 x 0.03, 1 x 0.04: none may be below one before it.
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, None, 0.02]) == [1.0, None, pytest.approx(0.06)]
    assert holm([0.001, 0.001]) == [0.002, 0.002]
    assert holm([]) == []


def test_holm_calls_a_difference_that_is_none_at_most_5_times_in_100() -> None:
    p = np.random.default_rng(2).uniform(size=(4000, 12))
    found = np.mean([min(value or 0 for value in holm(list(row))) <= 0.05 for row in p])
    assert found == pytest.approx(0.05, abs=0.012)


def test_the_spread_of_a_reference_is_that_of_a_difference_of_two_such_runs() -> None:
    assert spread_of_reference([0.1, 0.3]) == Spread(pytest.approx(0.2), 1)  # sqrt(2) times 0.2 / sqrt(2)
    assert spread_of_reference([0.1]) is None
    assert spread_of_reference([0.1, 0.1, 0.1]) is None


def test_the_range_of_a_spread_holds_the_true_one_in_95_of_100_samples() -> None:
    drawn = np.random.default_rng(3).normal(0, 2, (2000, 3)).std(axis=1, ddof=1)
    ranges = np.array([Spread(float(one), 2).range() for one in drawn])
    assert np.mean((ranges[:, 0] <= 2) & (ranges[:, 1] >= 2)) == pytest.approx(0.95, abs=0.02)


def row(variant: str, values: list[float | None], measure: str = "m") -> dict[str, object]:
    return {"variant": variant, "measure": measure, "values": values}


def test_a_pilot_pools_the_differences_of_its_variants(tmp_path: Path) -> None:
    file = tmp_path / "ablation.json"
    rows = [row("reference", [0.1, 0.2, 0.6]), row("a", [0.2, 0.4, 0.9]), row("b", [0.1, 0.5, None])]
    rows += [row("c", [0.3, None, None]), row("reference", [0.5, 0.6], "n"), row("a", [0.6, 0.7], "n")]
    file.write_text(json.dumps({"rows": rows}))
    # a: 0.1, 0.2, 0.3, variance 0.01 of 2; b: 0.0, 0.3, variance 0.045 of 1; c has one pair; n has no spread.
    spread = Spread(pytest.approx(np.sqrt((2 * 0.01 + 0.045) / 3)), 4 * 3 / 5)
    assert spread_of_pilot(file) == {"m": spread}


def test_a_pilot_s_degrees_of_freedom_fit_differences_that_share_a_reference(tmp_path: Path) -> None:
    """A variance of f degrees of freedom has a squared coefficient of variation of 2 / f."""
    rng, k, seeds = np.random.default_rng(4), 8, 4
    runs = rng.normal(size=(20_000, k + 1, seeds))
    pooled = (runs[:, 1:] - runs[:, :1]).var(axis=2, ddof=1).mean(axis=1)
    values = runs[0].tolist()
    rows = [row("reference", values[0]), *(row(str(i), values[i]) for i in range(1, k + 1))]
    (tmp_path / "ablation.json").write_text(json.dumps({"rows": rows}))
    spread = spread_of_pilot(tmp_path / "ablation.json")["m"]
    assert 2 / spread.freedom == pytest.approx(pooled.var() / pooled.mean() ** 2, rel=0.05)
    assert spread.deviation**2 == pytest.approx(pooled[0])


def test_the_table_of_the_earlier_design_is_a_pilot() -> None:
    found = spread_of_pilot(Path(__file__).parents[2] / "benchmarks" / "results" / "ablation.json")
    assert len(found) == 5
    assert 0.01 < found["retrieval, own report R@1"].deviation < 0.04


def test_the_page_on_ablations_has_what_this_pilot_lets_a_design_detect() -> None:
    root = Path(__file__).parents[2]
    found = spread_of_pilot(root / "benchmarks" / "results" / "ablation.json")
    lines = re.findall(r"^\| (\d+) \| (\d+) \| (.+) \|$", (root / "docs" / "ablation.md").read_text(), re.MULTILINE)
    assert len(lines) == 6
    for seeds, questions, cells in lines:
        spreads = detectable(int(seeds), int(questions))
        points = [100 * spreads * found[m].deviation for m in (PROGRESSION, SENTENCES, OWN_REPORT, REPORTS)]
        assert cells.split(" | ") == [*(f"{one:.1f}" for one in points), f"{spreads:.2f}"]


def test_nothing_of_the_earlier_table_survives_the_correction() -> None:
    rows = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "ablation.json").read_text())["rows"]
    values = {(one["variant"], one["measure"]): one["values"] for one in rows}
    p = {
        key: float(stats.ttest_rel(own, values["reference", key[1]]).pvalue)
        for key, own in values.items()
        if key[0] != "reference"
    }
    assert len(p) == 75
    assert min(one for one in holm(list(p.values())) if one is not None) == 1
    asked = [p[v.name, v.main] for v in VARIANTS if v.name not in BY_NAME_ALONE]
    assert len(asked) == 12
    assert min(p.values()) == pytest.approx(0.023, abs=0.0005)
    assert min(one for one in holm(asked) if one is not None) == pytest.approx(0.277, abs=0.0005)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"rows": [{"variant": "a"}]}', '{"rows": []}'])
def test_what_is_no_pilot_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pilot.json"
    with pytest.raises(MedstError, match=r"pilot\.json: no such file; give --pilot the ablation\.json"):
        spread_of_pilot(file)
    file.write_text(text)
    with pytest.raises(MedstError, match=r"pilot\.json (is damaged|has no variant with two seeds).*; give --pilot the"):
        spread_of_pilot(file)


def test_the_statement_says_what_can_be_detected_and_what_cannot_be_known() -> None:
    made = Design({"a": "m", "b": "m", "c": "n"}, 5, ["x"], "a file", {"m": Spread(0.02, 4)}, [])
    text, smallest = made.statement(), 2 * detectable(5, 3)
    low, high = smallest * np.sqrt(4 / stats.chi2.ppf([0.975, 0.025], 4))
    assert f"- m (a, b): {smallest:.1f} points ({low:.1f} to {high:.1f}, because a spread of 2.0 from few runs" in text
    assert "- n (c): not known, the spread has not been measured" in text
    assert "3 questions, one per variant; 5 seeds on 1 cohort." in text
    assert "All seeds share one cohort" in text
    several = Design({"a": "m"}, 2, ["x", "y"], "a file", {}, []).statement()
    assert "1 question, one per variant; 2 seeds on 2 cohorts." in several
    assert "share" not in several
    assert (
        "- m (a): one seed can't tell" in Design({"a": "m"}, 1, ["x"], "a file", {"m": Spread(0.02, 4)}, []).statement()
    )


def test_a_folder_keeps_what_was_stated_first_and_says_that_a_design_was_changed(tmp_path: Path) -> None:
    file = tmp_path / "design.json"
    first = Design({"a": "m"}, 3, ["x"], "its own seeds", {"m": Spread(0.02, 2)}, [])
    assert read_design(file) is None
    assert settle(file, first) == first
    later = Design({"a": "m"}, 3, ["x"], "its own seeds", {"m": Spread(0.5, 2)}, [])
    assert settle(file, later) == first == read_design(file)
    assert "replaces" not in first.statement()
    more = settle(file, Design({"a": "m"}, 5, ["x"], "its own seeds", {}, []))
    assert "This design replaces 1 that this folder had before" in more.statement()
    again = settle(file, Design({"a": "m", "b": "m"}, 5, ["x"], "its own seeds", {}, []))
    assert [one["seeds"] for one in again.earlier] == [3, 5]
    assert read_design(file) == again
    file.write_text('{"questions": {}}')
    with pytest.raises(
        MedstError, match=r"design\.json is damaged \(it has no 'seeds'\); give the ablation another folder"
    ):
        settle(file, first)
