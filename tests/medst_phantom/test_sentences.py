import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from medst_phantom.findings import DEVELOPING, FINDINGS, Finding
from medst_phantom.frames import FRAMES, HEDGED, OWN_FRAMES
from medst_phantom.phrasebook import CHANGE, CHANGE_IN_REPORTS, CHEXPERT_NAME, HEDGES, MENTIONS, SEVERITY_WORDS, SIGNS
from medst_phantom.sentences import (
    change_words,
    deny,
    deny_other_side,
    describe,
    may_hedge,
    noun_phrase,
    sample_hedged,
    sentence,
    severity_word,
)
from medst_phantom.trajectory import FindingState

STEPS = (None, "new", "improving", "stable", "worsening", "resolved")
CHANGES = {None: 0.0, "new": 0.5, "improving": -0.2, "stable": 0.0, "worsening": 0.4, "resolved": -0.5}


@st.composite
def states(draw) -> FindingState:
    name = draw(st.sampled_from(DEVELOPING))
    side = draw(st.sampled_from(("right", "left", "bilateral")))
    zone = draw(st.sampled_from(("upper", "mid", "lower", "retrocardiac")))
    if name == "edema":
        side, zone = "bilateral", "mid"
    elif name == "pneumothorax":
        side, zone = ("left" if side == "bilateral" else side), "upper"
    elif name in ("pleural_effusion", "atelectasis"):
        zone = "lower"
    elif zone == "retrocardiac":
        side = "left"
    step = draw(st.sampled_from(STEPS))
    severity = 0.0 if step == "resolved" else draw(st.floats(0.2, 1.0))
    return FindingState(Finding(name, side, zone, severity, 1), step, CHANGES[step])


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(states(), st.integers(0, 2**32 - 1), st.booleans())
def test_a_sentence_names_its_finding_and_is_well_formed(state, seed, quantified):
    statement = describe(state, rng(seed), quantified=quantified)
    assert any(word in statement.text.lower() for word in MENTIONS[state.finding.name])
    assert re.fullmatch(r"[A-Z][^{}\[\]]*[a-z_]\.", statement.text)
    assert "  " not in statement.text
    assert not re.search(r" ,|,,|\b[Aa] [aeio]|\b[Aa]n [^aeiou]", statement.text)
    value = dict(statement.labels)[
        {"pleural_effusion": "Pleural Effusion"}.get(state.finding.name, state.finding.name.capitalize())
    ]
    assert value == (1.0 if state.present else 0.0)


@given(states(), st.integers(0, 2**32 - 1))
def test_severity_words_follow_the_present_severity(state, seed):
    if not state.present:
        return
    text = describe(state, rng(seed)).text.lower()
    words = SEVERITY_WORDS[state.finding.name]
    band = sum(state.finding.severity >= bound for bound in (0.3, 0.48, 0.7))
    foreign = {word for other, group in enumerate(words) if other != band for word in group} - set(words[band])
    assert not foreign & set(re.findall(r"[a-z]+", re.sub(r"less extensive|more extensive", "", text)))


@given(states(), st.integers(0, 2**32 - 1))
def test_an_unquantified_sentence_has_no_severity_word(state, seed):
    text = describe(state, rng(seed), quantified=False).text.lower()
    words = {word for group in SEVERITY_WORDS[state.finding.name] for word in group}
    assert not words & set(re.findall(r"[a-z]+", re.sub(r"(less|more) extensive", "", text)))


@given(states(), st.integers(0, 2**32 - 1), st.booleans())
def test_comparison_needs_an_earlier_study(state, seed, quantified):
    text = describe(state, rng(seed), quantified=quantified).text.lower()
    compares = re.search(
        r"___|prior|previous|interval|since|\bnew|unchanged|stable|similar|persist|again|change|remain|no longer"
        r"|\bnow\b|creas|improv|wors|progress|diminish|reduc|larger|smaller|better|less|more|resol|clear"
        r"|disappear|residual|re-expanded|known|developed|appearance|earlier|preceding|recent comparison|last exam|allowing"
        r"|alter|\bstatic|constant|redemonstr|re-demon|ongoing|continued|appeared|arisen|onset|emergence|newly|evol|expan"
        r"|advanc|intensif|deterior|lessen|regress|abat|reced|shr|enlarg|heighten|serial"
        r"|follow-up|vanish|subsid|today|current|present(ly)|at this time|diuresis|under therapy",
        text,
    )
    assert bool(compares) == (state.progression is not None), text


@given(states(), st.integers(0, 2**32 - 1), st.booleans())
def test_a_sentence_never_says_the_opposite(state, seed, quantified):
    if state.progression not in ("improving", "worsening"):
        return
    opposite = {"improving": "worsening", "worsening": "improving"}[state.progression]
    words = {word for table in (CHANGE, CHANGE_IN_REPORTS) for group in table[opposite].values() for word in group}
    words -= {
        word for table in (CHANGE, CHANGE_IN_REPORTS) for group in table[state.progression].values() for word in group
    }
    text = describe(state, rng(seed), quantified=quantified).text.lower()
    assert not words & set(re.findall(r"[a-z]+", text))


def test_there_are_many_phrasings_of_every_step():
    for name in DEVELOPING:
        for step in STEPS:
            assert len(FRAMES[step]) + len(OWN_FRAMES[name][step]) >= 12
            generator = rng(0)
            severity = 0.0 if step == "resolved" else 0.5
            state = FindingState(Finding(name, "bilateral", "lower", severity, 1), step, CHANGES[step])
            texts = {describe(state, generator).text for _ in range(300)}
            assert len(texts) >= 12


@given(states(), st.integers(0, 2**32 - 1), st.booleans())
def test_a_hedged_sentence_is_uncertain_and_true(state, seed, quantified):
    if not may_hedge(state):
        assert state.finding.severity >= HEDGES[state.finding.name][1] or not state.present
        return
    statement = describe(state, rng(seed), hedged=True, quantified=quantified)
    assert dict(statement.labels)[CHEXPERT_NAME[state.finding.name]] == -1.0
    assert re.search(
        r"possibl|questionable|\bmay\b|cannot|suspected|suspicious|concern|could|probabl|suggest|versus|likely|consideration",
        statement.text.lower(),
    )
    assert any(word in statement.text.lower() for word in MENTIONS[state.finding.name])
    assert not re.search(r"[{}\[\]]|  ", statement.text)
    if state.progression in ("improving", "worsening"):
        opposite = {"improving": "worsening", "worsening": "improving"}[state.progression]
        said = set(re.findall(r"[a-z]+", statement.text.lower()))
        assert not said & {word for group in CHANGE[opposite].values() for word in group}


def test_hedging_does_not_depend_on_the_change():
    generator = rng(0)
    shares = []
    for step in ("improving", "worsening"):
        state = FindingState(Finding("pneumonia", "right", "lower", 0.5, 1), step, CHANGES[step])
        shares.append(np.mean([sample_hedged(state, generator) for _ in range(2000)]))
    assert abs(shares[0] - shares[1]) < 0.06
    assert abs(np.mean(shares) - HEDGES["pneumonia"][0]) < 0.04
    assert set(SIGNS) == set(HEDGES) == set(DEVELOPING)
    assert set(HEDGED) == set(STEPS) - {"resolved"}


@pytest.mark.parametrize("name", DEVELOPING)
@pytest.mark.parametrize("hedged", [False, True])
def test_the_length_of_a_sentence_does_not_tell_improving_from_worsening(name, hedged):
    side = "bilateral" if name == "edema" else "right"
    lengths = []
    for step in ("improving", "worsening"):
        generator = rng(0)
        state = FindingState(Finding(name, side, "lower", 0.5, 1), step, CHANGES[step])
        state = replace(state, change=0.25)
        lengths += [len(describe(state, generator, hedged=hedged).text.split()) for _ in range(1500)]
    assert abs(roc_auc_score([0] * 1500 + [1] * 1500, lengths) - 0.5) < 0.03


@given(st.lists(st.sampled_from(FINDINGS), min_size=1, unique=True), st.integers(0, 2**32 - 1))
def test_a_denial_negates_all_it_lists(names, seed):
    statement = deny(names, rng(seed))
    assert re.match(r"(No|There is no) ", statement.text)
    assert "evidence of evidence" not in statement.text
    assert sorted(value for _, value in statement.labels) == [0.0] * len(names)
    for name in names:
        assert any(word in statement.text for word in MENTIONS[name])


def test_the_other_side_is_denied_without_a_label():
    statement = deny_other_side(Finding("pneumothorax", "right", "upper", 0.5, 1), rng(1))
    assert "no left pneumothorax" in statement.text.lower()
    assert statement.labels == ()


def test_findings_without_a_size_get_no_word_of_size():
    assert "larger" in change_words("pleural_effusion", "worsening", "comparative")
    assert "larger" not in change_words("edema", "worsening", "comparative")


def test_bilateral_effusions_are_plural():
    noun = noun_phrase(Finding("pleural_effusion", "bilateral", "lower", 0.5, 1), rng(0))
    assert noun.plural
    assert noun.article("small effusions") == "small effusions"


@pytest.mark.parametrize(("severity", "word"), [(0.2, "mild"), (0.4, "mild"), (0.6, "moderate")])
def test_severity_words_are_in_order(severity, word):
    assert (severity_word("edema", severity, rng(0)) == word) == (severity > 0.3)


def test_sentence_removes_the_spaces_of_empty_slots():
    assert sentence("interval  improvement  , now mild ,") == "Interval improvement, now mild."
