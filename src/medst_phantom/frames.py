"""Sentence frames of phantom reports; data only, `sentences.py` fills them with the words of `phrasebook.py`.

Frames are `str.format` strings. The text in brackets is omitted from a sentence without severity, and a frame with {size}
outside brackets is not used for such a sentence. Improving and worsening share their frames, and each slot has the same
number of words for both, so that the length of a report does not tell them apart. The slots: {full} the finding with its
present severity ("small right pleural effusion"), {a} the same with an article if English needs one, {bare} without
severity, {the} bare with article, {noun} one word for it, {sign} what is seen of it, {size} the severity alone, {verb},
{change}, {comparative}, {changing} and {same} the words of `CHANGE` ({change_of} and {same_since} with the words that must
follow them), {more} {up} {air} the words of `MIRRORED`, {adv} and {slight} how much, {since} the comparison or nothing,
{against} the same but never nothing, {opening} the same as the start of a sentence, {has} {is} {was} {remains} {appears}
{shows} {persists} verbs that agree in number, {where}, {angle} and {bases} anatomy.
"""

_CHANGED = (
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
    "{the} {has} become {more} extensive {since}[ and {is} {size}]",
    "{the} {is} {more} prominent {since}[, now {size}]",
    "{full} {has} {verb} {since}",
    "{the} {is} {more} conspicuous {since}[, currently {size}]",
    "{the} {shows} {change} {since}[ and {is} presently {size}]",
    "serial imaging documents {changing} {bare}[, {size} today]",
    "follow-up demonstrates {change_of} {the}",
    "evolution of {the}, {more} pronounced {since}[ and {size}]",
    "{the} {is} visibly {comparative} {against}",
    "{opening} {the} {is} {more} evident[ and {size} at this time]",
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
        "{a} {is} evident",
        "{a} {is} observed",
        "radiograph reveals {a}",
        "imaging features are typical of {a}",
        "{a} {is} detected on this examination",
        "note is made of {a}",
        "pertinent positive: {full}",
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
        "{a} {has} appeared {since}",
        "{a} {has} arisen {since}",
        "interval onset of {a}",
        "emergence of {new} {full}",
        "newly acquired {full}, absent on earlier images",
    ),
    "worsening": _CHANGED,
    "improving": _CHANGED,
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
        "{the} {has} not evolved {since}",
        "no appreciable alteration of {the} {since}",
        "{full} {persists} {since}",
        "{the} {is} essentially {same} {since}",
        "{full}, previously described, {is} {same}",
        "redemonstration of {full}",
        "little interval change in {full}",
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
        "{the} {has} {verb} entirely {since}",
        "{opening} {the} {has} {verb}, without sequelae",
        "no remaining {bare}",
        "{bare} described earlier can no longer be discerned",
    ),
}
# A reader is not sure what the sign is; that it changed is certain.
_HEDGED_CHANGE = (
    "{sign} has {adv} {verb} {since}, possibly {bare}",
    "{opening} {sign} has {verb} and may represent {bare}",
    "{changing} {sign}, {bare} cannot be excluded",
    "{sign} is {adv} {comparative} {against}, suspicious for {bare}",
    "interval {change_of} {sign}, concerning for {bare}",
    "{sign} has {verb} {since}, probably {bare}",
)
HEDGED: dict[str | None, tuple[str, ...]] = {
    None: (
        "possible {full}",
        "questionable {full}",
        "there may be {a}",
        "{a} cannot be excluded",
        "{a} {is} suspected",
        "findings may represent {a}",
        "{a} {is} possible",
        "cannot exclude {a}",
        "{sign} raises concern for {bare}",
        "{sign} could reflect {bare} in the appropriate clinical setting",
        "{sign} is suspicious for {bare}",
        "suspected {full}",
        "probable {full}",
        "{sign} suggests {bare}, though overlapping structures could mimic it",
        "{bare} {is} a consideration given {sign}",
        "{sign} is concerning for {bare}",
        "equivocal {sign}, {bare} versus artifact",
        "{sign} most likely represents {bare}",
        "suggestion of {a}",
    ),
    "new": (
        "new {sign} may represent {bare}",
        "interval appearance of {sign}, possibly {bare}",
        "{opening} new {sign} is concerning for {bare}",
        "newly seen {sign}, {bare} cannot be excluded",
        "new {sign}, suspicious for {bare}",
        "possible new {bare}",
    ),
    "worsening": _HEDGED_CHANGE,
    "improving": _HEDGED_CHANGE,
    "stable": (
        "{sign} is {same_since}, possibly {bare}",
        "{persistent} {sign} may represent {bare}",
        "{opening} {sign} is {same}, {bare} cannot be excluded",
        "unchanged {sign}, which could reflect {bare}",
        "{sign} remains suspicious for {bare}",
    ),
}
# Said of one finding only, beside the frames that fit all; "changed" is for both directions.
_OWN: dict[str, dict[str | None, tuple[str, ...]]] = {
    "consolidation": {
        None: (
            "{size} opacity {where} with air bronchograms is consistent with consolidation",
            "there is {size} airspace consolidation {where}",
            "{size} homogeneous opacification {where} represents consolidation",
            "{size} alveolar opacity silhouettes the adjacent border {where}, compatible with consolidation",
        ),
        "new": (
            "new {size} airspace opacity {where}, consistent with consolidation",
            "new {size} alveolar filling {where} indicates consolidation",
        ),
        "changed": (
            "aeration {where} has {air} with[ {size}] consolidation",
            "consolidation {where} is {more} confluent {since}[, now {size}]",
            "opacification {where} from consolidation has {up} {since}",
            "airspace opacity {where} is {more} opaque {since}, reflecting consolidation",
        ),
        "stable": (
            "aeration {where} is unchanged with {size} consolidation",
            "airspace opacity {where} is stable and represents {size} consolidation",
        ),
        "resolved": ("consolidation {where} has cleared and the lung is well aerated",),
    },
    "edema": {
        None: (
            "perihilar haze and vascular indistinctness are consistent with {size} pulmonary edema",
            "pulmonary vascular congestion with {size} edema",
            "cephalization and septal thickening indicate {size} interstitial edema",
            "engorged vessels and bilateral hazy opacities reflect {size} pulmonary edema from volume overload",
            "Kerley B lines accompany {size} edema",
        ),
        "new": (
            "new perihilar haze is consistent with {size} pulmonary edema",
            "new vascular engorgement with {size} edema, likely cardiogenic",
        ),
        "changed": (
            "perihilar haze has {up}, in keeping with {changing}[ and now {size}] pulmonary edema",
            "vascular congestion has {up} {since}, as has the edema",
            "fluid overload with {changing} edema[, now {size}]",
            "hazy opacities have {up}, compatible with {changing} edema",
        ),
        "stable": (
            "perihilar haze is unchanged, in keeping with stable[ {size}] pulmonary edema",
            "persistent vascular congestion and[ {size}] edema, without interval diuresis",
        ),
        "resolved": ("the pulmonary vasculature is now normal and edema has resolved",),
    },
    "pleural_effusion": {
        None: (
            "blunting of {angle} is consistent with {a}",
            "there is {size} layering pleural fluid {where}, consistent with effusion",
            "a meniscus {where} indicates {a}",
            "{size} veiling from pleural fluid {where}",
        ),
        "new": (
            "new blunting of {angle} is consistent with {a}",
            "new meniscus {where}, compatible with {a}",
        ),
        "changed": (
            "{opening} pleural fluid {where} has {up}, with {a}",
            "the meniscus {where} is {more} apparent, from {changing} pleural effusion",
            "blunting of {angle} has {up}, reflecting {changing} effusion",
        ),
        "stable": (
            "blunting of {angle} is unchanged, consistent with {a}",
            "pleural fluid {where} is stable in volume, with {a}",
        ),
        "resolved": ("{angle} {angle_is} now sharp and {the} {has} resolved",),
    },
    "pneumonia": {
        None: (
            "{size} opacity {where} is compatible with pneumonia",
            "{size} opacity {where} consistent with pneumonia",
            "{size} heterogeneous infiltrate {where} indicates pneumonia",
            "{size} patchy airspace disease {where}, representing infectious pneumonia",
        ),
        "new": (
            "new {size} opacity {where} is consistent with pneumonia",
            "new {size} infiltrate {where} compatible with hospital acquired pneumonia or aspiration",
        ),
        "changed": (
            "opacity {where} has {up}, consistent with {changing}[ and now {size}] pneumonia",
            "infiltrate {where} is {more} confluent {since}, in keeping with {changing} pneumonia",
            "patchy opacities {where} have {up} {since}, as pneumonia",
        ),
        "stable": (
            "{size} opacity {where} is unchanged, consistent with known pneumonia",
            "infiltrate {where} is stable, from[ {size}] pneumonia under therapy",
        ),
        "resolved": ("opacity {where} has cleared, consistent with resolved pneumonia",),
    },
    "pneumothorax": {
        None: (
            "a visceral pleural line is seen {where}, consistent with {a}",
            "there is {a} without evidence of tension",
            "absent lung markings {where} confirm {a}",
            "{a} {is} outlined by the thin edge of the {side} lung",
        ),
        "new": (
            "a pleural line is now visible {where}, consistent with a new {size} pneumothorax",
            "new {size} air collection {where}, a pneumothorax",
        ),
        "changed": (
            "the {side} lung is {more} collapsed, with {change_of} {the}[, now {size}]",
            "the pleural separation {where} has {up}, indicating {changing} pneumothorax",
            "free air {where} has {up} {since}, from {changing} pneumothorax",
        ),
        "stable": (
            "the pleural line {where} is unchanged, with {a}",
            "stable distance between chest wall and lung edge, with {a}",
        ),
        "resolved": ("the {side} lung has fully re-expanded and {the} {has} resolved",),
    },
    "atelectasis": {
        None: (
            "linear opacities {where} are consistent with {size} atelectasis",
            "{size} volume loss {where} is compatible with atelectasis",
            "{size} platelike opacity {where} represents discoid atelectasis",
            "bandlike densities {where} reflect {size} subsegmental atelectasis",
            "{size} basal volume loss {where} from atelectasis",
        ),
        "new": (
            "new linear opacities {where} are consistent with {size} atelectasis",
            "new {size} collapse {where}, compatible with atelectasis",
        ),
        "changed": (
            "volume loss {where} has {up}, in keeping with {changing}[ and now {size}] atelectasis",
            "streaky opacities {where} are {more} opaque {since}, reflecting {changing} atelectasis",
            "linear densities {where} have {up} {since}, as atelectasis",
        ),
        "stable": (
            "linear opacities {where} are unchanged and reflect {size} atelectasis",
            "bandlike opacity {where} is stable, reflecting[ {size}] atelectasis",
        ),
        "resolved": ("the {bases} now well expanded and {the} {has} resolved",),
    },
}
OWN_FRAMES: dict[str, dict[str | None, tuple[str, ...]]] = {
    name: {**own, "improving": own["changed"], "worsening": own["changed"]} for name, own in _OWN.items()
}
