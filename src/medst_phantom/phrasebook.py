"""Words of phantom reports; data only, `sentences.py` puts them into the frames of `frames.py`."""

# Severity words by the upper bound of severity they are used up to.
SEVERITY_BOUNDS = (0.3, 0.48, 0.7, 1.01)
SEVERITY_WORDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "consolidation": (
        ("subtle", "minimal", "faint"),
        ("mild", "small", "patchy", "limited"),
        ("moderate",),
        ("extensive", "severe", "dense", "widespread"),
    ),
    "edema": (("minimal", "subtle", "early"), ("mild",), ("moderate",), ("severe", "extensive", "marked", "florid")),
    "pleural_effusion": (
        ("tiny", "trace", "minimal"),
        ("small", "mild"),
        ("moderate", "moderate-sized"),
        ("large", "extensive", "massive"),
    ),
    "pneumonia": (
        ("subtle", "minimal", "faint"),
        ("mild", "small", "limited"),
        ("moderate",),
        ("extensive", "severe", "widespread"),
    ),
    "pneumothorax": (
        ("tiny", "trace", "minimal", "miniscule"),
        ("small",),
        ("moderate", "moderate-sized"),
        ("large", "extensive", "sizable"),
    ),
    "atelectasis": (("minimal", "subtle"), ("mild", "minor"), ("moderate",), ("severe", "extensive", "marked")),
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
    "resolved": {"verb": ("resolved", "cleared", "disappeared"), "comparative": ("resolved", "cleared")},
}
ONLY_SIZED = ("smaller", "larger", "enlarged", "enlarging", "shrunken", "shrinking")
# More of them, for reports only; as many for one direction as for the other.
CHANGE_IN_REPORTS: dict[str, dict[str, tuple[str, ...]]] = {
    "improving": {
        "verb": ("lessened", "regressed", "abated", "receded"),
        "change": ("regression", "lessening"),
        "changing": ("regressing", "receding", "abating", "shrinking"),
        "comparative": ("reduced", "lessened", "shrunken"),
    },
    "worsening": {
        "verb": ("advanced", "deteriorated", "intensified", "expanded"),
        "change": ("deterioration", "expansion"),
        "changing": ("advancing", "deteriorating", "evolving", "enlarging"),
        "comparative": ("heightened", "intensified", "enlarged"),
    },
    "stable": {
        "comparative": ("constant", "static", "unaltered"),
        "changing": ("ongoing", "continued"),
    },
    "resolved": {"verb": ("vanished", "subsided")},
}
MIRRORED: dict[str, dict[str, str]] = {
    "improving": {"more": "less", "up": "decreased", "air": "improved"},
    "worsening": {"more": "more", "up": "increased", "air": "worsened"},
}

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
    "when compared with the preceding film",
    "from the most recent comparison",
    "since the earlier radiographs of ___",
)
SIMILAR_TO = ("compared to the prior radiograph", "compared to ___", "in appearance", "to the prior study")
OPENINGS = (
    "compared to the prior study of ___,",
    "as compared to the previous radiograph,",
    "in the interval,",
    "since ___,",
    "in comparison with the study of ___,",
    "allowing for differences in technique,",
    "relative to the last examination,",
)

SIGNS: dict[str, tuple[str, ...]] = {
    "consolidation": ("airspace opacity {where}", "parenchymal density {where}", "opacification {where}"),
    "edema": ("perihilar haze", "vascular indistinctness", "prominence of the interstitium"),
    "pleural_effusion": ("blunting of {angle}", "basal veiling density", "obscuration of {angle}"),
    "pneumonia": ("opacity {where}", "infiltrate {where}", "airspace disease {where}", "ill-defined density {where}"),
    "pneumothorax": ("linear interface {where}", "lucency {where}"),
    "atelectasis": ("streaky opacity {where}", "linear density {where}", "crowding of markings {where}"),
}
# By finding: how often a report that may hedge does, and the severity below which it may. Chosen so that the shares of
# uncertain labels are near MIMIC-CXR-JPG's: docs/phantom.md.
HEDGES: dict[str, tuple[float, float]] = {
    "consolidation": (0.5, 0.6),
    "edema": (0.6, 0.65),
    "pleural_effusion": (0.3, 0.45),
    "pneumonia": (0.6, 0.85),
    "pneumothorax": (0.35, 0.4),
    "atelectasis": (0.45, 0.5),
}

ABSENT_WORDS: dict[str, tuple[str, ...]] = {
    "consolidation": ("focal consolidation", "consolidation", "lobar consolidation", "confluent consolidation"),
    "edema": ("pulmonary edema", "edema", "overt edema", "frank pulmonary edema"),
    "pleural_effusion": ("pleural effusion", "effusion", "pleural fluid", "sizeable pleural effusion"),
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
    "no {list} is detected",
    "no {list} is appreciated",
    "no radiographic signs of {list}",
    "there is no visible {list}",
    "no convincing {list}",
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
