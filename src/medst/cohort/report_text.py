"""Radiology reports to text: find the sections by their headers, then clean them as released.

The header rules are those of the MIMIC-CXR report sectioner (MIT-LCP, MIT licence); its tables of synonyms and hand-made
rules are in mimic_report_sections.json. The cleaning is lossy on purpose, because the published numbers were made with it:
it splits at every number with a full stop, so that "3.5 cm" becomes "5 cm", and drops sentences of one word.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from medst.files import read_json

HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
PARAGRAPH = "\n \n"
WORD = re.compile(r"\w+")
SENTENCE_END = re.compile(r"[0-9]*\.")  # a full stop, with the number before it, if any
WHOLE_WORD = re.compile(r"\d+(?:[.,:/]\d+)+|\w+")
# A full stop, with the list number before it, if any; but not a decimal point.
WHOLE_SENTENCE_END = re.compile(r"(?:(?<!\S)\d{1,2})?\.(?!\d)")
FEWEST_TOKENS = 3
MOST_BYTES = 1_000_000
"""Largest report that is read; those of MIMIC-CXR have at most about 10 kB."""
TOO_LARGE = f"larger than the {MOST_BYTES / 1e6:.0f} MB that are read"


class Text(NamedTuple):
    """The text of a study's report.

    Attributes:
        report: the text; None if there is none.
        reason: why there is none, or a remark; else empty.
        kind: of the rejection: `report` if the copy is damaged, `text` if the rules leave an intact report out.
        loses_letters: whether the cleaning dropped non-ASCII letters.
    """

    report: str | None
    reason: str
    kind: str = "text"
    loses_letters: bool = False


TEXT_COLUMNS = {"report": pl.String, "reason": pl.String, "kind": pl.String, "loses_letters": pl.Boolean}
"""Columns of a table of `Text`."""


@lru_cache(maxsize=1)
def _rules() -> dict[str, Any]:
    rules: dict[str, Any] = read_json(Path(__file__).with_name("mimic_report_sections.json"), "install medst again")
    return rules


def hand_made_studies() -> frozenset[str]:
    """Studies (as s12345678) that have a hand-made rule in the sectioner; the released table has no text for them."""
    rules = _rules()
    return frozenset(rules["study_to_section"]) | frozenset(rules["study_to_character_span"])


@lru_cache(maxsize=4096)
def normalise_name(header: str) -> str:
    """Map all spellings of a header to one name.

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


def sections(text: str) -> list[tuple[str, str]]:
    """Split a report at its upper-case headers, into (normalised name, text).

    A report without headers is one section, `full report`. Empty findings and impressions are left out. If there is
    neither, the text after the first paragraph of the last section becomes a section of its own, `last_paragraph`.
    """
    header = HEADER.search(text)
    found = [("full report", text)] if header is None else [("preamble", text[: header.start(1)])]
    while header is not None:
        start = header.end()
        # A second header in the line of the first one is part of its text.
        following = HEADER.search(text, max(start, text.find("\n", start)))
        end = len(text) if following is None else following.start()
        found.append((normalise_name(header.group(1)), text[start:end]))
        header = following
    found = [(name, part) for name, part in found if name not in ("findings", "impression") or part.strip()]
    if not {"findings", "impression"} & {name for name, _ in found} and PARAGRAPH in found[-1][1]:
        name, last = found.pop()
        first, _, rest = last.partition(PARAGRAPH)
        found += [(name, first), ("last_paragraph", rest)]
    return found


def clean(text: str, fewest_words: int = 2) -> str:
    """Lower-case ASCII words, sentence by sentence, as in the released preprocessing.

    Sentences of fewer than `fewest_words` are dropped; the released code drops those of one word.

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


def clean_whole(text: str) -> str:
    """Like `clean`, but keep decimals, dates, sentences of one word and non-ASCII letters.

    >>> clean_whole("1. Edema. 2. ET tube 3.5 cm above the carina.")
    'edema et tube 3.5 cm above the carina'
    """
    return " ".join(
        word for sentence in WHOLE_SENTENCE_END.split(text) for word in WHOLE_WORD.findall(sentence.lower())
    )


def report_text(report: str, whole: bool = False, study_id: str = "") -> Text:
    """The text of a pair from a complete report: the last impression, then the last findings.

    Args:
        report: with line ends "\\n".
        whole: unlike the released code, keep decimals and one-word sentences, use the last paragraph if there is neither
            section, and follow the hand-made rules.
        study_id: as s12345678, for the hand-made rules.
    """
    if not report.strip():
        return Text(None, "the report is empty", "report")
    last = {name: part.strip() for name, part in sections(report)}
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


def section_text(impression: str, findings: str, whole: bool = False) -> Text:
    """The text of a pair from its two sections.

    >>> section_text("Seite 1.", "Größe ist unverändert.")
    Text(report='gre ist unverndert', reason='', kind='text', loses_letters=True)
    """
    text = f"{impression} {findings}"
    if not text.strip():
        return Text(None, "the report has neither findings nor an impression")
    if whole:
        cleaned = clean_whole(text)
        return Text(cleaned, "") if cleaned else Text(None, "no word is left of the report")
    cleaned = clean(text)
    loses_letters = not text.isascii() and not clean_whole(text).isascii()
    if len(cleaned.split()) < FEWEST_TOKENS:
        return Text(None, f"fewer than {FEWEST_TOKENS} words are left of the report", loses_letters=loses_letters)
    return Text(cleaned, "", loses_letters=loses_letters)
