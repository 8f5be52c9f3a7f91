import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medst.cohort.report_text import (
    FEWEST_TOKENS,
    HEADER,
    _rules,
    clean,
    clean_whole,
    hand_made_studies,
    normalise_name,
    report_text,
    section_text,
    sections,
)

# What reports are made of, so that headers, paragraphs, numbers and odd letters turn up in every example.
FRAGMENTS = (
    "\n ",
    "\n \n ",
    "\n",
    "FINDINGS:",
    "IMPRESSION:",
    "CHEST (PA):",
    "A/B-C,:",
    ": ",
    " ",
    ".",
    "12.",
    "3.5 cm",
)
WORDS = ("edema", "No", "___", "naïve", "µ", "≥", "\ufffd", "İ", "x_1", "²")
reports = st.lists(st.one_of(st.sampled_from(FRAGMENTS + WORDS), st.text(max_size=4)), max_size=40).map("".join)


def test_sections_are_the_recorded_ones(recorded: Path) -> None:
    for study, expected in json.loads((recorded / "sections.json").read_text()).items():
        names, texts = zip(*sections(expected["text"]), strict=True)
        assert list(texts) == expected["sections"], study
        assert list(names) == expected["names"], study


def test_captions_are_the_recorded_ones(recorded: Path) -> None:
    for example in json.loads((recorded / "captions.json").read_text()):
        assert section_text(example["impression"], example["findings"]).report == example["content"]


@given(reports)
def test_sections_are_pieces_of_the_report_in_its_order(report: str) -> None:
    found = sections(report)
    assert found
    end = 0
    for _, text in found:
        begin = report.find(text, end)
        assert begin >= end
        end = begin + len(text)
    names = {name for name, _ in found}
    assert not ("last_paragraph" in names and names & {"findings", "impression"})


@given(
    st.lists(st.tuples(st.sampled_from(["FINDINGS", "IMPRESSION", "HISTORY", "COMPARISON"]), st.sampled_from(WORDS)))
)
def test_an_assembled_report_is_split_again_and_the_last_section_of_a_name_wins(parts: list[tuple[str, str]]) -> None:
    report = "FINAL REPORT" + "".join(f"\n {name}:  {word} is\n seen here today.\n" for name, word in parts)
    assert [name for name, _ in sections(report)[1:]] == [name.lower() for name, _ in parts]
    last = dict(parts)
    wanted = [clean(f"{last[name]} is seen here today.") for name in ("IMPRESSION", "FINDINGS") if name in last]
    assert report_text(report)[0] == (" ".join(wanted) or None)


@given(reports)
def test_a_second_header_in_the_same_line_is_text(report: str) -> None:
    line = f"\n HISTORY: a {report.replace(chr(10), ' ')} FINDINGS: b"
    assert [name for name, _ in sections(line)][:2] == ["preamble", "history"]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("IMPRESSON", "impression"),
        ("FINDINGS AND IMPRESSION", "impression"),
        ("NDICATION", "impression"),
        ("FINAL FINDINGS", "findings"),
        ("CHEST, PORTABLE", "findings"),
        ("AP VIEW", "findings"),
        ("PFI", "history"),
        ("RECOMMENDATION(S)", "recommendations"),
        ("NOTE", "note"),
    ],
)
def test_a_header_has_one_name_for_all_its_spellings(header: str, name: str) -> None:
    assert normalise_name(header) == name
    assert HEADER.match(f"\n {header}: ")


def naive_clean(text: str) -> str:
    """The rule of the released preprocessing, step by step."""
    kept = []
    for piece in re.split("[0-9]+[.]", text.replace("\n", " ")):
        for sentence in piece.split("."):
            tokens, token = [], ""
            for letter in sentence.lower() + " ":
                if letter.isalnum() or letter == "_":
                    token += letter
                elif token:
                    tokens.append(token)
                    token = ""
            if len(tokens) > 1:
                ascii_only = ("".join(letter for letter in token if ord(letter) < 128) for token in tokens)
                kept += [token for token in ascii_only if token]
    return " ".join(kept)


@given(reports)
def test_cleaning_follows_the_rule(text: str) -> None:
    assert clean(text) == naive_clean(text)


@given(reports)
def test_cleaned_text_is_ascii_words_and_stays_when_cleaned_again(text: str) -> None:
    cleaned = clean(text)
    assert re.fullmatch(r"(\w+( \w+)*)?", cleaned, re.ASCII)
    assert cleaned == cleaned.lower()
    if " " in cleaned:
        assert clean(cleaned) == cleaned


def test_one_word_sentences_can_be_kept() -> None:
    assert clean("Edema. No effusion.", fewest_words=1) == "edema no effusion"


@given(reports, reports)
def test_a_pair_has_no_text_or_enough_of_it(impression: str, findings: str) -> None:
    text = section_text(impression, findings).report
    assert text is None or len(text.split()) >= FEWEST_TOKENS


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        ("", "the report is empty"),
        (" \n ", "the report is empty"),
        ("No header at all in this one.", "the report has neither findings nor an impression"),
        ("x\n HISTORY: Cough.\n \n Lungs are clear today.", "the report has neither findings nor an impression"),
        ("x\n IMPRESSION:  Normal.\n", "fewer than 3 words are left of the report"),
    ],
)
def test_a_report_without_text_says_why(report: str, reason: str) -> None:
    assert report_text(report)[:2] == (None, reason)


def test_the_text_is_the_impression_and_then_the_findings() -> None:
    report = "x\n FINDINGS:  Lungs are clear.\n \n IMPRESSION:  No change seen.\n"
    assert report_text(report)[:2] == ("no change seen lungs are clear", "")


def test_the_hand_made_rules_are_for_54_studies() -> None:
    assert len(hand_made_studies()) == 54
    assert all(re.fullmatch(r"s[0-9]{8}", study) for study in hand_made_studies())


def test_whole_text_keeps_what_the_released_cleaning_destroys() -> None:
    text = (
        "1. Edema.\n2. Nodule of 1.2 x 0.8 cm, ET tube 3.5 cm above the carina. 10. Since 3/14/2101, at 9:30: stable."
    )
    assert clean_whole(text) == (
        "edema nodule of 1.2 x 0.8 cm et tube 3.5 cm above the carina since 3/14/2101 at 9:30 stable"
    )
    assert "2 x 8 cm" in clean(text)
    assert clean_whole("Naïve café.") == "naïve café"


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 9)), min_size=1, max_size=6))
def test_no_decimal_is_lost_in_whole_text(numbers: list[tuple[int, int]]) -> None:
    text = " ".join(f"{i + 1}. Tube {a}.{b} cm." for i, (a, b) in enumerate(numbers))
    assert clean_whole(text).split() == [word for a, b in numbers for word in ("tube", f"{a}.{b}", "cm")]


def test_whole_text_uses_reports_that_the_released_rules_leave_out() -> None:
    last = "x\n HISTORY:  Cough.\n \n Stable since then.\n"
    assert report_text(last)[:2] == (None, "the report has neither findings nor an impression")
    assert report_text(last, whole=True)[:2] == ("stable since then", "")
    spans = _rules()["study_to_character_span"]
    study, (start, end) = next(iter(spans.items()))
    report = "a" * start + "b" * (end - start) + "c" * 50
    assert report_text(report, whole=True, study_id=study)[:2] == ("b" * (end - start), "")
    study = next(study for study, name in _rules()["study_to_section"].items() if name == "recommendations")
    report = "x\n RECOMMENDATIONS:  Follow up.\n\n IMPRESSION:  None.\n"
    assert report_text(report, whole=True, study_id=study)[:2] == ("follow up", "")
    assert report_text(report, whole=True, study_id="s1")[:2] == ("none", "")
