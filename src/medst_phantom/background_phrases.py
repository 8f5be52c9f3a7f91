"""Words for everything in a report besides the findings; data only, `background.py` chooses among them.

None of these sentences compares with an earlier study unless it stands under 'stable', 'new' or 'removed', and none names a
finding of `phrasebook.py`.
"""

# By device and step: None is a plain statement, which also suits a device that was there before.
# Slots: {side}, {route} the vein, {place} where the tip is, {cm} above the carina.
DEVICES: dict[str, dict[str | None, tuple[str, ...]]] = {
    "endotracheal_tube": {
        None: (
            "the endotracheal tube terminates {cm} cm above the carina",
            "the tip of the endotracheal tube is {cm} cm above the carina",
            "ET tube tip lies approximately {cm} cm from the carina",
            "the patient is intubated, with the tube ending {cm} cm above the carina",
            "endotracheal tube is in appropriate position, {cm} cm proximal to the carina",
        ),
        "stable": ("the endotracheal tube is unchanged in position, {cm} cm above the carina",),
        "new": (
            "interval intubation, with the endotracheal tube tip {cm} cm above the carina",
            "the patient has been intubated, and the tube ends {cm} cm above the carina",
        ),
        "removed": ("the endotracheal tube has been removed", "the patient has been extubated in the interval"),
    },
    "enteric_tube": {
        None: (
            "an enteric tube {place}",
            "the nasogastric tube {place}",
            "orogastric tube {place}",
            "a Dobbhoff feeding tube {place}",
            "NG tube {place}",
        ),
        "stable": ("the nasogastric tube is unchanged and {place}",),
        "new": ("a new enteric tube {place}", "interval placement of a nasogastric tube, which {place}"),
        "removed": ("the enteric tube has been removed", "interval removal of the nasogastric tube"),
    },
    "central_line": {
        None: (
            "{side} {route} central venous catheter terminates in the {place}",
            "a {side} {route} line ends in the {place}",
            "the tip of the {side} {route} catheter projects over the {place}",
            "{side} {route} central line is seen with its tip in the {place}",
            "{side} {route} sheath and catheter extend to the {place}",
        ),
        "stable": ("{side} {route} central venous catheter is unchanged, ending in the {place}",),
        "new": (
            "interval placement of a {side} {route} central venous catheter, with its tip in the {place}",
            "new {side} {route} line terminates in the {place}",
        ),
        "removed": ("the {side} {route} line has been removed", "interval removal of the {side} {route} catheter"),
    },
    "picc": {
        None: (
            "a {side} PICC line terminates in the {place}",
            "{side} PICC tip projects over the {place}",
            "{side} upper extremity PICC courses to the {place}",
            "{side} peripherally inserted central catheter ends in the {place}",
        ),
        "stable": ("{side} PICC remains in place with its tip in the {place}",),
        "new": ("new {side} PICC ends in the {place}", "a {side} PICC has been placed, with its tip in the {place}"),
        "removed": ("the {side} PICC has been removed",),
    },
    "port": {
        None: (
            "{side} chest wall port catheter tip projects over the {place}",
            "a {side}-sided Port-A-Cath terminates in the {place}",
            "{side} subcutaneous infusion port ends in the {place}",
            "{side} pectoral Mediport catheter is intact, with its tip in the {place}",
        ),
        "stable": ("{side} Port-A-Cath is unchanged in position",),
        "new": ("interval placement of a {side} chest wall port ending in the {place}",),
        "removed": ("the {side} port has been removed",),
    },
    "pacemaker": {
        None: (
            "a {side}-sided pacemaker is present with leads in the right atrium and right ventricle",
            "dual-lead pacemaker leads are in standard position",
            "{side} pectoral pacer with two leads in expected locations",
            "{side} chest wall dual-chamber pacing device, its wires intact and without kinks",
            "cardiac conduction device generator overlies the {side} chest, leads project over the right heart",
            "{side}-sided AICD with right atrial and right ventricular leads",
        ),
        "stable": ("{side} pacemaker and its leads are unchanged in position",),
        "new": ("a {side} pacemaker has been implanted, its leads end in the right atrium and right ventricle",),
        "removed": ("the pacemaker has been explanted",),
    },
    "chest_tube": {
        None: (
            "a {side}-sided chest tube is in place",
            "{side} chest tube {place}",
            "{side} thoracostomy tube {place}",
            "{side} pleural drainage catheter {place}",
        ),
        "stable": ("{side} chest tube remains in place", "{side} chest tube is unchanged in position"),
        "new": ("interval insertion of a {side} chest tube", "a {side} pleural drain has been placed"),
        "removed": (
            "the {side} chest tube has been removed",
            "{side} thoracostomy tube has been withdrawn in the interval",
        ),
    },
}
DEVICES_SUMMARY = (
    "monitoring and support devices are in standard position",
    "tubes and lines as described above",
    "lines and tubes in satisfactory position",
    "support apparatus is appropriately positioned",
)
NO_DEVICES = ("no support devices are seen", "no indwelling lines or tubes")
ADVICE_LOW_TUBE = (
    "retraction of the tube by 2 cm is advised for optimal placement",
    "the tube could be withdrawn by about 2 cm",
)
ADVICE_DEEP_LINE = (
    "withdrawal by 3 cm would place the tip at the cavoatrial junction",
    "consider pulling the catheter back by 2 to 3 cm",
)
ENTERIC_PLACES = {
    True: ("courses below the diaphragm, tip not included on the film", "passes out of view beyond the lower margin"),
    False: (
        "ends in the stomach",
        "is coiled in the gastric fundus",
        "terminates in the stomach, with the sideport below the gastroesophageal junction",
    ),
}
CHEST_TUBE_PLACES = {
    True: ("is directed towards the apex", "terminates near the lung apex"),
    False: ("is coiled at the base", "ends as a pigtail at the costophrenic sulcus"),
}
VEIN_PLACES = (  # by the lowest height above the carina, cm
    (0.0, ("upper SVC", "proximal superior vena cava")),
    (-1.6, ("mid SVC", "mid superior vena cava")),
    (-3.2, ("low SVC", "lower SVC", "distal superior vena cava")),
    (-4.6, ("cavoatrial junction", "superior cavoatrial junction")),
    (-99.0, ("right atrium", "upper right atrium")),
)

HEART_WORDS = ((0.5, ("mild", "minimal")), (0.8, ("moderate",)), (1.01, ("severe", "marked")))  # by highest severity
LARGE_HEART = (
    "the heart is {ly} enlarged",
    "{size} cardiomegaly is present",
    "{size} cardiomegaly",
    "{size} enlargement of the cardiac silhouette",
    "the cardiac silhouette is {ly} enlarged",
    "cardiomegaly is noted",
    "heart size is {ly} increased for this projection",
    "{ly} enlarged cardiac shadow with left ventricular configuration",
    "the cardiothoracic ratio is {ly} increased",
    "there is {size} global cardiac enlargement",
)
SAME_HEART = ("{size} cardiomegaly is unchanged", "the heart remains {ly} enlarged", "unchanged {size} cardiomegaly")
BORDERLINE_HEART = (
    "the heart is top normal in size",
    "heart size is borderline, possible mild cardiomegaly",
    "borderline cardiomegaly, which may be accentuated by technique",
    "the cardiac silhouette may be minimally enlarged, likely exaggerated by projection",
)
# With an explicit word on size, which the labeller takes for a denial.
NORMAL_HEART = ("heart size is normal", "the heart is normal in size", "the heart is not enlarged", "no cardiomegaly")
NORMAL_SILHOUETTE = (
    "the cardiomediastinal silhouette is unremarkable",
    "cardiomediastinal silhouette is within normal limits",
    "the cardiac and mediastinal contours are normal",
    "cardiac, hilar and mediastinal contours are preserved",
    "the mediastinum is midline",
    "normal cardiac shadow",
    "the heart and great vessels are within normal range",
)
WIDE_MEDIASTINUM = (
    "the superior mediastinum is widened, likely due to vascular structures",
    "mediastinal contours are prominent, probably from tortuous vessels and fat",
    "mild widening of the upper mediastinum, possibly lipomatosis",
)
KNOB = (
    "the aorta is tortuous",
    "the aortic knob is prominent",
    "unfolding of the thoracic aorta",
    "the descending aorta is ectatic",
    "mild tortuosity of the aorta, with mural calcification",
)
VESSELS = (
    "atherosclerotic calcifications are seen at the aortic arch",
    "the aorta is calcified",
    "coronary stent is visualized",
    "mitral annular calcification is noted",
    "hilar contours are normal",
    "the hila are unremarkable",
    "both hila are symmetric without adenopathy",
    "central pulmonary arteries are prominent, suggesting pulmonary arterial hypertension",
    "the trachea is midline",
    "the azygos fissure is incidentally seen",
)
REMNANTS = (
    "median sternotomy wires are intact",
    "surgical clips project over the right upper quadrant",
    "surgical clips are noted in the left axilla",
    "mediastinal clips and sternal wires are noted",
    "status post CABG with intact sternal cerclage",
    "cholecystectomy clips in the abdomen",
    "prosthetic aortic valve is in place",
    "cervical spinal fusion hardware is partially imaged",
    "postsurgical changes of mastectomy with absent breast shadow",
    "suture material marks a wedge resection at the periphery",
    "bilateral breast implants are visualized",
    "shoulder arthroplasty is partly included",
    "an embolization coil overlies the upper abdomen",
    "vertebroplasty cement within a lumbar body",
)
BONES: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = (
    ("degenerative changes are seen in the thoracic spine", ()),
    ("mild degenerative changes of the spine are noted", ()),
    ("multilevel degenerative changes of the thoracic spine without compression deformity", ()),
    ("anterior bridging osteophytes throughout the dorsal spine, typical of DISH", ()),
    ("osteopenia with accentuated kyphosis", ()),
    ("acromioclavicular and glenohumeral joint arthrosis", ()),
    ("diffuse demineralization of the skeleton", ()),
    ("Schmorl nodes and disc space narrowing in the thoracolumbar region", ()),
    ("high-riding humeral head suggests rotator cuff tear", ()),
    ("bone island in the humeral head", ()),
    ("pectus excavatum deformity of the sternum", ()),
    ("healed right rib fractures are noted", (("Fracture", 1.0),)),
    ("a remote left clavicular fracture is present", (("Fracture", 1.0),)),
    ("age-indeterminate wedge compression fracture of a midthoracic vertebra", (("Fracture", 1.0),)),
)
NORMAL_BONES = (
    "the osseous structures are unremarkable",
    "no acute osseous abnormality",
    "visualized bony structures are intact",
    "imaged bones and soft tissues are normal",
    "no displaced rib fracture is seen",
    "bony thorax is intact",
    "the upper abdomen is unremarkable",
    "no free air below the right hemidiaphragm",
    "no subdiaphragmatic free gas",
    "no suspicious osseous lesion",
    "skeletal structures are grossly normal for age",
    "nonobstructive bowel gas pattern in the partially visualized abdomen",
    "overlying soft tissues show nothing unusual",
)
LUNG_EXTRAS: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = (
    ("calcified granuloma in the right upper lobe, a benign remnant of histoplasmosis", (("Lung Lesion", 1.0),)),
    ("a 5 mm nodule projects over the left midlung", (("Lung Lesion", 1.0),)),
    ("nodular density likely represents a nipple shadow", (("Lung Lesion", -1.0),)),
    ("biapical scarring and pleural thickening", (("Pleural Other", 1.0),)),
    ("calcified pleural plaques reflect asbestos exposure", (("Pleural Other", 1.0),)),
    ("flattened diaphragms and increased anteroposterior diameter, in keeping with emphysema", ()),
    ("hyperinflated lungs compatible with COPD", ()),
    ("chronic interstitial markings at the periphery, nonspecific", ()),
    ("eventration of the right hemidiaphragm", ()),
    ("a hiatal hernia projects behind the heart", ()),
    ("calcified mediastinal nodes from healed granulomatous disease", ()),
    ("peribronchial cuffing, as in bronchitis or reactive airways", ()),
    ("bronchiectasis with tram-tracking in the lingula", ()),
    ("cystic lucencies and architectural distortion from fibrosis", ()),
)
LIMITS_BEDSIDE = (
    "low lung volumes accentuate the bronchovascular markings",
    "the patient is rotated, which limits evaluation",
    "evaluation is limited by portable technique and body habitus",
    "the left costophrenic angle is excluded from the film",
    "lordotic positioning obscures the apices",
    "the chin overlies the upper chest and obscures part of it",
    "assessment is suboptimal owing to motion and underpenetration",
    "respiratory effort is poor, crowding the vessels",
    "external wires overlie the chest",
)
LIMITS = ("inspiratory effort is adequate", "slightly rotated patient", "ten posterior ribs are counted on inspiration")
CLEAR_LUNGS = (
    "the lungs are clear",
    "lungs are well expanded and clear",
    "both lungs are clear",
    "the lungs are well inflated and clear",
    "lung fields are clear",
    "lungs clear bilaterally",
    "no focal parenchymal abnormality",
    "the pulmonary parenchyma is clear and the vasculature is normal",
    "symmetric aeration of both lungs, without infiltrate",
    "no airspace disease is appreciated",
)
NOTHING_ACUTE = (
    "no acute cardiopulmonary process",
    "no acute cardiopulmonary abnormality",
    "no acute intrathoracic process",
    "no evidence of acute cardiopulmonary disease",
    "normal chest radiograph",
    "normal chest x-ray examination",
    "no radiographic evidence of acute disease",
    "unremarkable study",
    "no radiographic explanation for the patient's symptoms",
    "nothing acute",
)
ADVICE = (
    "Follow-up radiographs after treatment are recommended.",
    "Recommend repeat imaging in 6 to 8 weeks to document clearing.",
    "Clinical correlation is advised.",
    "Consider CT for further characterization if symptoms persist.",
    "A dedicated PA and lateral examination would be helpful when the patient is able to stand.",
    "Short-term surveillance is suggested.",
    "Please correlate with laboratory values and fever curve.",
    "Attention on future studies.",
)

COMPLAINTS = (
    *("cough", "shortness of breath", "fever", "chest pain", "hypoxia", "altered mental status", "weakness"),
    *("dyspnea on exertion", "recent fall", "leukocytosis", "respiratory failure", "syncope", "wheezing"),
    *("productive sputum", "hemoptysis", "night sweats", "palpitations", "dizziness", "confusion", "lethargy"),
    *("nausea and vomiting", "epigastric discomfort", "abdominal distention", "back pain", "chills and rigors"),
    *("COPD exacerbation", "CHF", "sepsis", "cirrhosis and ascites", "lymphoma on chemotherapy", "lung cancer"),
    *("end stage renal disease", "atrial fibrillation", "NSTEMI", "aortic stenosis", "motor vehicle collision"),
    *("bone marrow transplant", "HIV", "diabetes and neutropenia", "stroke", "seizure", "GI bleed", "pancreatitis"),
    *("hip fracture, preop", "cardiac arrest", "CABG", "valve replacement", "esophagectomy", "lobectomy"),
    *("smoking history", "asthma", "sarcoidosis", "interstitial lung disease", "pulmonary embolism", "tachycardia"),
    *("positive PPD", "weight loss", "overdose", "hyponatremia", "urinary tract infection", "cellulitis"),
)
QUESTIONS = (
    *("eval for pneumonia", "evaluate for acute process", "interval change", "r/o effusion", "assess for infiltrate"),
    *("please assess for edema", "eval for pneumothorax", "confirm line placement", "check tube position"),
    *("any acute cardiopulmonary process?", "rule out infection", "evidence of volume overload?", "preoperative"),
    *("assess resolution", "evaluate for aspiration", "source of fever?", "please evaluate for free air"),
)
BEDSIDE_TECHNIQUE = (
    "Single portable AP view of the chest.",
    "Portable AP chest radiograph.",
    "Portable semi-upright radiograph of the chest.",
    "Single frontal view of the chest.",
    "Supine bedside AP film.",
    "Semierect portable chest radiography was performed.",
    "One anteroposterior view, acquired at the bedside.",
)
TWO_VIEWS = (
    "Chest {view} and lateral",
    "Frontal and lateral views of the chest.",
    "{view} and lateral views of the chest.",
    "Upright {view} and lateral views of the chest were obtained.",
    "Two views: {view} and lateral.",
    "Standing {view} and lateral radiographs of the thorax.",
)
ONE_VIEW = ("{view} view of the chest.", "Single frontal view of the chest.", "One {view} radiograph.")
INDICATION_FORMS = (
    "___ year old {sex} with {complaint}  // {question}",
    "___-year-old {sex} with {complaint}, {question}.",
    "History: ___{letter} with {complaint}  // {question}",
    "{complaint}, {question}.",
    "{sex} with history of {complaint}, now with {other}. {question}",
    "___ year old {sex} status post {complaint}, {other}; {question}",
    "{complaint}.",
)
