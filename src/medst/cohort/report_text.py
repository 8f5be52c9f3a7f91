"""Radiology reports to text: sections by their headers, then the released cleaning.

The header rules are those of the MIMIC-CXR report sectioner (MIT-LCP, MIT licence); its tables of synonyms and hand-made
rules are in mimic_report_sections.json. The cleaning is lossy on purpose: it is what the published numbers were made with.
It cuts at every "number and full stop", so that "3.5 cm" becomes "5 cm", and drops sentences of one word.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
PARAGRAPH = "\n \n"
WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"[0-9]*\.")  # a full stop, with the number it may end
WHOLE_WORD = re.compile(r"\d+(?:[.,:/]\d+)+|\w+")
WHOLE_SENTENCE_END = re.compile(
    r"(?:(?<!\S)\d{1,2})?\.(?!\d)"
)  # a full stop, with the list number it may end, but no point
FEWEST_TOKENS = 3


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report: its normalised name, its text, and where that begins."""

    name: str
    text: str
    start: int


@lru_cache(maxsize=1)
def _rules() -> dict[str, Any]:
    return json.loads((files("medst.cohort") / "mimic_report_sections.json").read_text(encoding="utf-8"))


def hand_made_studies() -> frozenset[str]:
    """Studies (as s12345678) whose text the sectioner takes by hand; the released table has no text for them."""
    rules = _rules()
    return frozenset(rules["study_to_section"]) | frozenset(rules["study_to_character_span"])


@lru_cache(maxsize=4096)
def normalise_name(header: str) -> str:
    """One name for all spellings of a header.

    >>> normalise_name("IMPRESSON"), normalise_name("CHEST, PORTABLE AP"), normalise_name("WET READ")
    ('impression', 'findings', 'wet read')
    """
    rules, name = _rules(), header.lower().strip()
    if name in rules["header_synonyms"]:
        return rules["header_synonyms"][name]
    for main in rules["main_sections_matched_if_contained"]:
        if main in name:
            return main
    if any(part in name for part in rules["headers_that_mean_findings_if_contained"]):
        return "findings"
    return name


def sections(text: str) -> list[Section]:
    """Cut a report at its upper-case headers.

    A report without headers is one section, `full report`. Empty findings and impressions are left out. Where neither
    exists, what follows the first paragraph of the last section is a section of its own, `last_paragraph`.
    """
    header = HEADER.search(text)
    if header is None:
        found = [Section("full report", text, 0)]
    else:
        found = [Section("preamble", text[: header.start(1)], 0)]
    while header is not None:
        start = header.end()
        # A second header in the line of the first one is part of its text.
        following = HEADER.search(text, max(start, text.find("\n", start)))
        end = len(text) if following is None else following.start()
        found.append(Section(normalise_name(header.group(1)), text[start:end], start))
        header = following
    found = [s for s in found if s.name not in ("findings", "impression") or s.text.strip()]
    if not {"findings", "impression"} & {s.name for s in found} and PARAGRAPH in found[-1].text:
        last = found.pop()
        first, _, rest = last.text.partition(PARAGRAPH)
        # Counted as the sectioner counts it, without the blank line between the two.
        found += [Section(last.name, first, last.start), Section("last_paragraph", rest, last.start + len(first))]
    return found


def clean(text: str, fewest_words: int = 2) -> str:
    """Lower-case ASCII words, sentence after sentence, as the released preprocessing makes them.

    Args:
        text: raw text of a section.
        fewest_words: sentences of fewer words are dropped; the released code drops those of one.

    >>> clean("1. Edema. 2. Effusion is small.")
    'effusion is small'
    >>> clean("ET tube 3.5 cm above the carina.")
    'et tube 5 cm above the carina'
    """
    kept: list[str] = []
    for sentence in SENTENCE_END.split(text):
        words = WORD.findall(sentence.lower())
        if len(words) >= fewest_words:
            kept += words
    if not text.isascii():
        kept = [word for word in (word.encode("ascii", "ignore").decode() for word in kept) if word]
    return " ".join(kept)


def caption(impression: str, findings: str) -> str | None:
    """The text of a pair: impression, then findings, cleaned; None where fewer than 3 tokens are left."""
    text = clean(f"{impression} {findings}")
    return text if len(text.split()) >= FEWEST_TOKENS else None


def clean_whole(text: str) -> str:
    """As `clean`, but decimals, dates and sentences of one word stay, and so do letters that ASCII lacks.

    >>> clean_whole("1. Edema. 2. ET tube 3.5 cm above the carina.")
    'edema et tube 3.5 cm above the carina'
    """
    return " ".join(
        word for sentence in WHOLE_SENTENCE_END.split(text) for word in WHOLE_WORD.findall(sentence.lower())
    )


def loses_letters(impression: str, findings: str) -> bool:
    """Whether the released cleaning drops letters of these sections, which ASCII lacks.

    >>> loses_letters("Größe 3,5 cm.", ""), loses_letters("Size 3.5 cm.", "37° - no fever.")
    (True, False)
    """
    text = f"{impression} {findings}"
    return not text.isascii() and not clean_whole(text).isascii()


def report_text(report: str, whole: bool = False, study_id: str = "") -> tuple[str | None, str]:
    """The text of a pair from a whole report: the last impression, then the last findings.

    Args:
        report: all of it.
        whole: keep decimals and one-word sentences, take the last paragraph where there is neither section, and follow the
            hand-made rules; all of which the released code does not.
        study_id: as s12345678, which the hand-made rules go by.

    Returns:
        The text, or None; and why it is None.
    """
    if not report.strip():
        return None, "the report is empty"
    last = {section.name: section.text.strip() for section in sections(report)}
    impression, findings = last.get("impression", ""), last.get("findings", "")
    if whole:
        rules = _rules()
        if study_id in rules["study_to_character_span"]:
            start, end = rules["study_to_character_span"][study_id]
            impression, findings = report[start:end], ""
        elif study_id in rules["study_to_section"]:
            impression, findings = last.get(rules["study_to_section"][study_id], ""), ""
        elif not impression and not findings:
            impression = last.get("last_paragraph", "")
    return section_text(impression, findings, whole)


def section_text(impression: str, findings: str, whole: bool = False) -> tuple[str | None, str]:
    """The text of a pair from its two sections; arguments and result as `report_text`."""
    if not impression.strip() and not findings.strip():
        return None, "the report has neither findings nor an impression"
    if whole:
        text = clean_whole(f"{impression} {findings}")
        return (text, "") if text else (None, "no word is left of the report")
    found = caption(impression, findings)
    return found, "" if found else f"fewer than {FEWEST_TOKENS} words are left of the report"
