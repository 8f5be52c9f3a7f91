import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from medst_phantom.anatomy import sample_anatomy
from medst_phantom.background import sample_background
from medst_phantom.mimic_files import ImageRecord, PatientRecord, StudyRecord
from medst_phantom.ms_cxr_t import IMAGE_COLUMNS, Comparison, comparisons, image_rows, sentence_rows, severities_of
from medst_phantom.reports import write_report
from medst_phantom.trajectory import CLEAR_STEP, FOLLOWED, progression_between, sample_trajectory


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]\w*", text.lower())


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str, str, str]]:
    return sentence_rows(np.random.default_rng(0))


@pytest.fixture(scope="module")
def report_words() -> Counter:
    counts: Counter = Counter()
    for seed in range(300):
        rng = np.random.default_rng(seed)
        background = sample_background(rng, sample_anatomy(rng))
        for study in sample_trajectory(rng):
            report = write_report(study, background, rng)
            counts.update(set(words(f"{report.findings} {report.impression}")))
    return counts


def test_pairs_are_balanced_and_all_different(rows):
    assert len(rows) == len({row[:2] for row in rows}) == 360
    assert Counter(row[2:] for row in rows) == {
        ("paraphrase", "RadGraph"): 100,
        ("contradiction", "RadGraph"): 100,
        ("paraphrase", "swaps"): 80,
        ("contradiction", "swaps"): 80,
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("subset", ["RadGraph", "swaps"])
def test_word_overlap_and_length_tell_nothing(seed, subset):
    chosen = [row for row in sentence_rows(np.random.default_rng(seed)) if row[3] == subset]
    paraphrase = [row[2] == "paraphrase" for row in chosen]
    pairs = [(set(words(row[0])), set(words(row[1]))) for row in chosen]
    overlap = [len(one & two) / len(one | two) for one, two in pairs]
    shorter = [-abs(len(words(row[0])) - len(words(row[1]))) for row in chosen]
    assert 0.45 <= roc_auc_score(paraphrase, overlap) <= 0.55
    assert 0.45 <= roc_auc_score(paraphrase, shorter) <= 0.55
    assert 0.45 <= roc_auc_score(paraphrase, [len(words(row[1])) for row in chosen]) <= 0.55


def test_a_swap_changes_one_word(rows):
    swaps = [(words(one), words(two)) for one, two, _, subset in rows if subset == "swaps"]
    assert swaps
    for first, second in swaps:
        assert len(first) == len(second)
        assert sum(a != b for a, b in zip(first, second, strict=True)) == 1


def test_a_contradiction_contradicts(rows):
    better = r"decreas|improv|diminish|reduc|smaller|better|resol|clear|disappear"
    worse = r"increas|wors|progress|larger"
    same = r"unchanged|stable|similar|persistent"

    def said(text: str) -> str:
        text = re.sub("improved aeration", "", text.lower())
        return "".join(name for name, form in (("b", better), ("w", worse), ("s", same)) if re.search(form, text))

    for one, two, category, _ in rows:
        assert len(said(one)) == len(said(two)) == 1, (one, two)
        assert (said(one) == said(two)) == (category == "paraphrase"), (one, two)


def test_the_words_are_those_of_the_reports(rows, report_words):
    used = [word for row in rows for text in row[:2] for word in words(text)]
    assert np.mean([report_words[word] >= 3 for word in used]) > 0.95


def test_every_sentence_is_once_in_a_paraphrase_and_once_in_a_contradiction(rows):
    for place in (0, 1):
        counts = Counter((row[place], row[2]) for row in rows)
        for sentence, category in counts:
            other = "contradiction" if category == "paraphrase" else "paraphrase"
            assert counts[sentence, category] == counts[sentence, other], sentence
    resolved = [row for row in rows if re.search("resolved|cleared|disappeared", row[0] + row[1])]
    categories = Counter(row[2] for row in resolved)
    assert min(categories.values()) > 20


def study(study_id: int, **severities: float) -> StudyRecord:
    truth = tuple({"finding": name, "severity": severity} for name, severity in severities.items())
    images = (
        ImageRecord(f"side{study_id}", "LATERAL", 8, 8, ""),
        ImageRecord(f"odd{study_id}", "", 8, 8, ""),
        ImageRecord(f"front{study_id}", "AP", 8, 8, ""),
        ImageRecord(f"second{study_id}", "AP", 8, 8, ""),
    )
    return StudyRecord(study_id, f"2150-01-0{study_id}T10:00:00.000", "", images, {}, truth)


def test_comparisons_of_two_studies_are_one_row():
    patient = PatientRecord(
        10000001,
        (
            study(1, edema=0.5, pneumonia=0.4),
            study(2, edema=0.52, pneumonia=0.0, consolidation=0.3),
            study(3, edema=0.3, consolidation=0.6),
            study(4, edema=0.0, consolidation=0.0),
            study(5),
        ),
    )
    matched, apart = comparisons([severities_of(patient)], np.random.default_rng(0))
    assert not matched  # one patient has too few to match
    chosen = [*apart, Comparison(0, 0, 2, "edema", 0.5, 0.3, "improving")]
    table = [dict(zip(IMAGE_COLUMNS, row, strict=True)) for row in image_rows([patient], chosen)]
    assert [(row["previous_dicom_id"], row["dicom_id"]) for row in table] == [
        ("front1", "front2"),
        ("front3", "front4"),
        ("front1", "front3"),
    ]
    assert [row["edema_progression"] for row in table] == ["", "improving", "improving"]
    assert [row["consolidation_progression"] for row in table] == ["worsening", "improving", ""]
    assert [row["pneumonia_progression"] for row in table] == ["improving", "", ""]
    assert [row["pneumothorax_progression"] for row in table] == ["", "", ""]
    assert [row["previous_study_id"] for row in table] == [1, 3, 1]


def followed(count: int, seed: int) -> list[list[dict[str, float]]]:
    return [
        [
            {finding.name: finding.severity for finding in study.present}
            for study in sample_trajectory(np.random.default_rng([seed, index]), FOLLOWED)
        ]
        for index in range(count)
    ]


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 999))
def test_matched_comparisons_are_balanced_and_one_severity_tells_nothing(seed):
    patients = followed(80, seed)
    matched, apart = comparisons(patients, np.random.default_rng(seed))
    counts = Counter(one.progression for one in matched)
    assert max(counts.values()) - min(counts.values()) <= 5
    assert sum(counts.values()) > 60
    assert {one.progression for one in apart} == {"new", "resolved"}
    assert all(one.current == one.prior + 1 for one in apart)
    for one in matched:
        before, now = (patients[one.patient][place][one.finding] for place in (one.prior, one.current))
        assert one.prior < one.current
        assert (one.before, one.now) == (before, now)
        assert one.progression == progression_between(before, now)
    changes = [one for one in matched if one.progression != "stable"]
    worse = [one.progression == "worsening" for one in changes]
    for severity in ([one.now for one in changes], [one.before for one in changes]):
        assert abs(roc_auc_score(worse, severity) - 0.5) < 0.055


def test_steps_between_clear_and_stable_are_not_compared():
    matched, _ = comparisons([[{"edema": 0.5}, {"edema": 0.5 + CLEAR_STEP - 0.01}]] * 20, np.random.default_rng(0))
    assert not matched
