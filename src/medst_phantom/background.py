"""Everything in a report besides the findings: the patient, tubes and lines, heart, bones, technique.

These sentences do not depend on the findings and, except for the size of the heart, are not drawn. They are distractors
that a model must learn to ignore, and have CheXpert labels of their own.
"""

from dataclasses import dataclass

import numpy as np

from medst_phantom.sentences import Statement, pick, sentence
from medst_phantom.trajectory import StudyTruth

# A sentence with the CheXpert labels it sets.
_Labelled = tuple[str, tuple[tuple[str, float], ...]]

_DEVICE = (("Support Devices", 1.0),)
_IMPLANTS = (
    "a left-sided pacemaker is present with leads in the right atrium and right ventricle",
    "dual-lead pacemaker leads are in standard position",
    "right-sided port terminates in the low SVC",
    "left chest wall port catheter tip projects over the cavoatrial junction",
)
_REMNANTS = (
    "median sternotomy wires are intact",
    "surgical clips project over the right upper quadrant",
    "surgical clips are noted in the left axilla",
    "mediastinal clips and sternal wires are noted",
)
_BONES: tuple[_Labelled, ...] = (
    ("degenerative changes are seen in the thoracic spine", ()),
    ("mild degenerative changes of the spine are noted", ()),
    ("multilevel degenerative changes of the thoracic spine without compression deformity", ()),
    ("old healed right rib fractures are noted", (("Fracture", 1.0),)),
    ("a healed left clavicular fracture is present", (("Fracture", 1.0),)),
    ("there is mild dextroscoliosis of the thoracic spine", ()),
)
_NORMAL_BONES = (
    "the osseous structures are unremarkable",
    "no acute osseous abnormality",
    "visualized bony structures are intact",
    "no displaced rib fracture is seen",
    "the upper abdomen is unremarkable",
    "no free air below the right hemidiaphragm",
)
_NORMAL_HEART: tuple[_Labelled, ...] = (
    ("the cardiomediastinal silhouette is unremarkable", (("Enlarged Cardiomediastinum", 0.0),)),
    ("cardiomediastinal silhouette is within normal limits", (("Enlarged Cardiomediastinum", 0.0),)),
    ("heart size is normal", (("Cardiomegaly", 0.0),)),
    ("the heart is normal in size", (("Cardiomegaly", 0.0),)),
    ("the cardiac and mediastinal contours are normal", (("Enlarged Cardiomediastinum", 0.0),)),
    ("the cardiac silhouette is not enlarged", (("Cardiomegaly", 0.0),)),
)
_LARGE_HEART: tuple[_Labelled, ...] = (
    ("the heart is mildly enlarged", (("Cardiomegaly", 1.0),)),
    ("mild cardiomegaly is present", (("Cardiomegaly", 1.0),)),
    ("the cardiac silhouette is enlarged", (("Cardiomegaly", 1.0),)),
    ("cardiomegaly is noted", (("Cardiomegaly", 1.0),)),
)
_VESSELS = (
    "the aorta is tortuous",
    "the aorta is calcified",
    "atherosclerotic calcifications are seen at the aortic knob",
    "hilar contours are normal",
    "the hila are unremarkable",
)
_TUBES = (
    "the endotracheal tube terminates {cm} cm above the carina",
    "the tip of the endotracheal tube is {cm} cm above the carina",
    "an enteric tube courses below the diaphragm, tip not included",
    "nasogastric tube ends in the stomach",
    "right internal jugular central venous catheter ends in the mid SVC",
    "a right PICC line terminates in the low SVC",
    "left PICC tip projects over the cavoatrial junction",
    "monitoring and support devices are in standard position",
)
_COMPLAINTS = (
    "cough",
    "shortness of breath",
    "fever",
    "chest pain",
    "hypoxia",
    "altered mental status",
    "weakness",
    "dyspnea on exertion",
    "recent fall",
    "leukocytosis",
    "respiratory failure",
    "syncope",
)
_QUESTIONS = (
    "eval for pneumonia",
    "evaluate for acute process",
    "interval change",
    "r/o effusion",
    "please assess for edema",
    "eval for pneumothorax",
    "assess for infiltrate",
)


@dataclass(frozen=True)
class Background:
    """Properties that are constant over a patient's studies.

    Attributes:
        sex: 'man' or 'woman'.
        large_heart: whether reports call the heart enlarged.
        implant, remnant, vessels: sentences, or '' if there is none.
        bones: index into the bone sentences, or -1 for unremarkable bones.
    """

    sex: str
    large_heart: bool
    implant: str
    remnant: str
    vessels: str
    bones: int


def sample_background(rng: np.random.Generator, *, large_heart: bool = False) -> Background:
    """Draw a patient; the size of the heart is given because it shows in the images."""
    return Background(
        sex=pick(("man", "woman"), rng),
        large_heart=large_heart,
        implant=pick(_IMPLANTS, rng) if rng.random() < 0.12 else "",
        remnant=pick(_REMNANTS, rng) if rng.random() < 0.15 else "",
        vessels=pick(_VESSELS, rng) if rng.random() < 0.35 else "",
        bones=int(rng.integers(len(_BONES))) if rng.random() < 0.35 else -1,
    )


def device_statements(study: StudyTruth, background: Background, rng: np.random.Generator) -> list[Statement]:
    """Implants, and in a bedside study the tubes and lines of that day."""
    texts = []
    if background.implant and rng.random() < 0.8:
        texts.append(background.implant)
    if study.portable and rng.random() < 0.5:
        texts.append(pick(_TUBES, rng).format(cm=f"{rng.uniform(2.5, 6.0):.1f}"))
    drained = [f for f in study.present if f.name == "pneumothorax" and f.severity > 0.4]
    if drained and study.portable and rng.random() < 0.5:
        texts.append(f"a {drained[0].side}-sided chest tube is in place")
    return [Statement(sentence(text), _DEVICE) for text in texts]


def other_statements(background: Background, rng: np.random.Generator) -> list[Statement]:
    """Heart, vessels, bones and surgical remnants: one to three sentences."""
    heart = _LARGE_HEART if background.large_heart else _NORMAL_HEART
    statements = []
    if rng.random() < 0.88:
        text, labels = heart[int(rng.integers(len(heart)))]
        statements.append(Statement(sentence(text), labels))
    if background.vessels and rng.random() < 0.6:
        statements.append(Statement(sentence(background.vessels)))
    if background.remnant and rng.random() < 0.6:
        statements.append(Statement(sentence(background.remnant)))
    if background.bones >= 0 and rng.random() < 0.6:
        text, labels = _BONES[background.bones]
        statements.append(Statement(sentence(text), labels))
    elif background.bones < 0 and rng.random() < 0.3:
        statements.append(Statement(sentence(pick(_NORMAL_BONES, rng))))
    return statements


def technique_remark(study: StudyTruth, rng: np.random.Generator) -> str:
    """Technique of the examination, as in a report's technique section."""
    if study.portable:
        return pick(
            (
                "Single portable AP view of the chest.",
                "Portable AP chest radiograph.",
                "Portable semi-upright radiograph of the chest.",
                "Single frontal view of the chest.",
            ),
            rng,
        )
    if {"LATERAL", "LL"} & set(study.views):
        return pick(
            (
                f"Chest {study.views[0]} and lateral",
                "Frontal and lateral views of the chest.",
                f"{study.views[0]} and lateral views of the chest.",
                f"Upright {study.views[0]} and lateral views of the chest were obtained.",
            ),
            rng,
        )
    return pick((f"{study.views[0]} view of the chest.", "Single frontal view of the chest."), rng)


def indication(background: Background, rng: np.random.Generator) -> str:
    """Reason for the study; ages and names are blanked as in the de-identified originals."""
    complaint, question = pick(_COMPLAINTS, rng), pick(_QUESTIONS, rng)
    return pick(
        (
            f"___ year old {background.sex} with {complaint}  // {question}",
            f"___-year-old {background.sex} with {complaint}, {question}.",
            f"History: ___{'M' if background.sex == 'man' else 'F'} with {complaint}  // {question}",
            f"{complaint.capitalize()}, {question}.",
        ),
        rng,
    )
