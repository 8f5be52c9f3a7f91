"""Words and sentence frames of phantom reports; data only, `sentences.py` combines them.

Frames are `str.format` strings. The text in brackets is omitted from a sentence without severity, and a frame with {size}
outside brackets is not used for such a sentence. The slots: {full} the finding with its present
severity ("small right pleural effusion"), {a} the same with an article if English needs one, {bare} without
severity, {the} bare with article, {noun} one word for it, {size} the severity alone, {verb}, {change},
{comparative}, {changing} and {same} the words of `CHANGE` ({change_of} and {same_since} with the words that must
follow them), {adv} and {slight} how much, {since} the comparison or nothing, {against} the same but never
nothing, {opening} the same as the start of a sentence, {has} {is} {was} {remains} {appears} verbs that agree in
number, {where} and {angle} anatomy.
"""

# Severity words by the upper bound of severity they are used up to.
SEVERITY_BOUNDS = (0.3, 0.48, 0.7, 1.01)
SEVERITY_WORDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "consolidation": (
        ("subtle", "minimal", "faint"),
        ("mild", "small", "patchy"),
        ("moderate",),
        ("extensive", "severe", "dense"),
    ),
    "edema": (("minimal", "subtle"), ("mild",), ("moderate",), ("severe", "extensive", "marked")),
    "pleural_effusion": (("tiny", "trace", "minimal"), ("small", "mild"), ("moderate",), ("large", "extensive")),
    "pneumonia": (("subtle", "minimal"), ("mild", "small"), ("moderate",), ("extensive", "severe")),
    "pneumothorax": (("tiny", "trace", "minimal"), ("small",), ("moderate",), ("large", "extensive")),
    "atelectasis": (("minimal", "subtle"), ("mild", "slight"), ("moderate",), ("severe", "extensive", "marked")),
}
# What is measured in size; the others are measured in extent.
SIZED = ("pleural_effusion", "pneumothorax")

# One word for one change. Every word here stands alone, so that a sentence can be turned into its opposite by
# changing one word: the sentence-similarity pairs are built on that.
CHANGE: dict[str, dict[str, tuple[str, ...]]] = {
    "improving": {
        "verb": ("decreased", "improved", "diminished"),
        "change": ("decrease", "improvement", "reduction"),
        "changing": ("decreasing", "improving", "resolving"),
        "comparative": ("smaller", "better", "improved", "decreased"),
    },
    "worsening": {
        "verb": ("increased", "worsened", "progressed"),
        "change": ("increase", "worsening", "progression"),
        "changing": ("increasing", "worsening", "progressing"),
        "comparative": ("larger", "worse", "worsened", "increased"),
    },
    "stable": {
        "comparative": ("unchanged", "stable", "similar"),
        "changing": ("unchanged", "stable", "persistent"),
    },
    "resolved": {"verb": ("resolved", "cleared", "disappeared")},
}
ONLY_SIZED = ("smaller", "larger")

SINCE = (
    "since ___",
    "since the prior study",
    "compared to the prior radiograph",
    "compared to ___",
    "in the interval",
    "since the prior exam",
    "as compared to the previous radiograph",
    "relative to the prior study of ___",
    "since the previous examination",
)
SIMILAR_TO = ("compared to the prior radiograph", "compared to ___", "in appearance", "to the prior study")
OPENINGS = (
    "compared to the prior study of ___,",
    "as compared to the previous radiograph,",
    "in the interval,",
    "since ___,",
    "in comparison with the study of ___,",
)

FRAMES: dict[str | None, tuple[str, ...]] = {
    None: (
        "there {is} {a}",
        "{a} {is} present",
        "{a} {is} noted",
        "{a} {is} seen",
        "{full}",
        "findings are consistent with {a}",
        "frontal view shows {a}",
        "{a} {is} identified",
        "{full} {is} demonstrated",
        "the study is notable for {a}",
        "{the} {is} {size}",
        "{the} {is} {size} in {extent}",
        "{a} {is} visualized",
    ),
    "new": (
        "there {is} {new} {full}",
        "new {full} {since}",
        "{a} {has} developed {since}",
        "interval development of {a}",
        "{opening} {new} {full} {has} developed",
        "{a} {is} new {since}",
        "new {bare}[, {size} in {extent}]",
        "{new} {full} {is} now seen, not present previously",
        "interval appearance of {a}",
        "{opening} there {is} now {a}",
        "newly apparent {full}",
        "{a} {was} not seen on the prior study and {is} new",
    ),
    "worsening": (
        "{the} {has} {adv} {verb} {since}[, now {size}]",
        "{opening} {the} {has} {adv} {verb}[ and {is} now {size}]",
        "{the} {has} {verb} {since}",
        "interval {change_of} {the}[, now {size}]",
        "{slight} interval {change_of} {the}",
        "{changing} {bare}[, now {size}]",
        "{changing} {full} {since}",
        "{the} {is} {adv} {comparative} {since}[, now {size}]",
        "{opening} {the} {appears} {comparative}[, now {size}]",
        "there {is} {a}, {comparative} {against}",
        "there has been interval {change_of} {the}[, which {is} now {size}]",
        "{full}, {comparative} {against}",
        "{the} {has} become more extensive {since}[ and {is} {size}]",
        "{the} {is} more prominent {since}[, now {size}]",
        "{full} {has} {verb} {since}",
    ),
    "improving": (
        "{the} {has} {adv} {verb} {since}[, now {size}]",
        "{opening} {the} {has} {adv} {verb}[ and {is} now {size}]",
        "{the} {has} {verb} {since}",
        "interval {change_of} {the}[, now {size}]",
        "{slight} interval {change_of} {the}",
        "{changing} {bare}[, now {size}]",
        "{changing} {full} {since}",
        "{the} {is} {adv} {comparative} {since}[, now {size}]",
        "{opening} {the} {appears} {comparative}[, now {size}]",
        "there {is} {a}, {comparative} {against}",
        "there has been interval {change_of} {the}[, which {is} now {size}]",
        "{full}, {comparative} {against}",
        "{the} {has} become less extensive {since}[ and {is} {size}]",
        "{the} {is} less prominent {since}[, now {size}]",
        "{full} {has} {verb} {since}",
        "{the} {has} partially cleared {since}, with[ {size}] residual {noun}",
    ),
    "stable": (
        "{the} {is} {same_since}",
        "{full} {is} {same_since}",
        "{opening} {the} {is} {same}",
        "{the} {remains} {size}",
        "no significant interval change in {the}[, which {remains} {size}]",
        "{full}, {same_since}",
        "{same} {full}",
        "{the} {has} not significantly changed {since}",
        "{full} {is} again seen, {same_since}",
        "{a} {is} re-demonstrated, {same} in {extent}",
        "{opening} there is no change in {the}",
        "{persistent} {full}",
        "{full} {appears} {same_since}",
        "{the} {is} {size} and {same} in {extent}",
    ),
    "resolved": (
        "{the} {has} resolved {since}",
        "previously seen {bare} {is} no longer seen",
        "{opening} {the} {has} resolved",
        "interval resolution of {the}",
        "complete resolution of {the} {since}",
        "{the} seen previously {has} cleared",
        "{the} {has} completely resolved",
        "{the} {has} cleared {since}",
        "{the} {is} no longer visualized",
        "{the} {is} no longer present",
        "previously noted {bare} {has} disappeared",
        "resolved {bare}",
        "there {is} no longer evidence of {the}",
    ),
    "hedged": (
        "possible {full}",
        "questionable {full}",
        "there may be {a}",
        "{a} cannot be excluded",
        "{a} {is} suspected",
        "findings may represent {a}",
        "{a} {is} possible",
        "cannot exclude {a}",
    ),
}

# Said of one finding only, beside the frames that fit all.
OWN_FRAMES: dict[str, dict[str | None, tuple[str, ...]]] = {
    "consolidation": {
        None: (
            "{size} opacity {where} with air bronchograms is consistent with consolidation",
            "there is {size} airspace consolidation {where}",
        ),
        "new": ("new {size} airspace opacity {where}, consistent with consolidation",),
        "worsening": (
            "aeration {where} has worsened with[ {size}] consolidation",
            "consolidation {where} is more confluent {since}[, now {size}]",
        ),
        "improving": (
            "aeration {where} has improved with[ {size}] residual consolidation",
            "consolidation {where} is less confluent {since}[, now {size}]",
        ),
        "stable": ("aeration {where} is unchanged with {size} consolidation",),
        "resolved": ("consolidation {where} has cleared and the lung is well aerated",),
    },
    "edema": {
        None: (
            "perihilar haze and vascular indistinctness are consistent with {size} pulmonary edema",
            "pulmonary vascular congestion with {size} edema",
        ),
        "new": ("new perihilar haze is consistent with {size} pulmonary edema",),
        "worsening": ("perihilar haze has increased, in keeping with worsening[ and now {size}] pulmonary edema",),
        "improving": ("perihilar haze has decreased, in keeping with improving[ and now {size}] pulmonary edema",),
        "stable": ("perihilar haze is unchanged, in keeping with stable[ {size}] pulmonary edema",),
        "resolved": ("the pulmonary vasculature is now normal and edema has resolved",),
    },
    "pleural_effusion": {
        None: (
            "blunting of {angle} is consistent with {a}",
            "there is {size} layering pleural fluid {where}, consistent with effusion",
        ),
        "new": ("new blunting of {angle} is consistent with {a}",),
        "worsening": ("{opening} pleural fluid {where} has increased, with {a}",),
        "improving": ("{opening} pleural fluid {where} has decreased, with {a}",),
        "stable": ("blunting of {angle} is unchanged, consistent with {a}",),
        "resolved": ("{angle} {angle_is} now sharp and {the} {has} resolved",),
    },
    "pneumonia": {
        None: (
            "{size} opacity {where} is compatible with pneumonia",
            "{size} opacity {where} consistent with pneumonia",
        ),
        "new": ("new {size} opacity {where} is consistent with pneumonia",),
        "worsening": ("opacity {where} has increased, consistent with worsening[ and now {size}] pneumonia",),
        "improving": ("opacity {where} has decreased, consistent with improving[ and now {size}] pneumonia",),
        "stable": ("{size} opacity {where} is unchanged, consistent with known pneumonia",),
        "resolved": ("opacity {where} has cleared, consistent with resolved pneumonia",),
    },
    "pneumothorax": {
        None: (
            "a visceral pleural line is seen {where}, consistent with {a}",
            "there is {a} without evidence of tension",
        ),
        "new": ("a pleural line is now visible {where}, consistent with a new {size} pneumothorax",),
        "worsening": ("the {side} lung is less well expanded, with {change_of} {the}[, now {size}]",),
        "improving": ("the {side} lung has partially re-expanded, with {change_of} {the}[, now {size}]",),
        "stable": ("the pleural line {where} is unchanged, with {a}",),
        "resolved": ("the {side} lung has fully re-expanded and {the} {has} resolved",),
    },
    "atelectasis": {
        None: (
            "linear opacities {where} are consistent with {size} atelectasis",
            "{size} volume loss {where} is compatible with atelectasis",
        ),
        "new": ("new linear opacities {where} are consistent with {size} atelectasis",),
        "worsening": ("volume loss {where} has increased, in keeping with worsening[ and now {size}] atelectasis",),
        "improving": ("volume loss {where} has decreased, in keeping with improving[ and now {size}] atelectasis",),
        "stable": ("linear opacities {where} are unchanged and reflect {size} atelectasis",),
        "resolved": ("the {bases} now well expanded and {the} {has} resolved",),
    },
}

ABSENT_WORDS: dict[str, tuple[str, ...]] = {
    "consolidation": ("focal consolidation", "consolidation"),
    "edema": ("pulmonary edema", "edema"),
    "pleural_effusion": ("pleural effusion", "effusion"),
    "pneumonia": ("evidence of pneumonia", "pneumonia"),
    "pneumothorax": ("pneumothorax",),
    "atelectasis": ("atelectasis",),
}
ABSENT_FRAMES = (
    "no {list}",
    "there is no {list}",
    "no {list} is seen",
    "no {list} is identified",
    "there is no evidence of {list}",
)
# How a reader (and a test) tells that a text speaks of a finding.
MENTIONS: dict[str, tuple[str, ...]] = {
    "consolidation": ("consolidation",),
    "edema": ("edema",),
    "pleural_effusion": ("effusion", "pleural fluid"),
    "pneumonia": ("pneumonia",),
    "pneumothorax": ("pneumothorax",),
    "atelectasis": ("atelectasis",),
}
CHEXPERT_NAME: dict[str, str] = {
    "consolidation": "Consolidation",
    "edema": "Edema",
    "pleural_effusion": "Pleural Effusion",
    "pneumonia": "Pneumonia",
    "pneumothorax": "Pneumothorax",
    "atelectasis": "Atelectasis",
}
