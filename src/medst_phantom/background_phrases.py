"""Words for everything in a report besides the findings; data only, `background.py` chooses among them.

None of these sentences compares with an earlier study, but for `SAME_HEART`, and none names a finding of `phrasebook.py`.
Words in braces are drawn once per patient from `DETAILS`.
"""

DETAILS: dict[str, tuple[str, ...]] = {
    "side": ("right", "left"),
    "lobe": ("upper", "lower"),
    "region": ("cervical", "upper thoracic", "midthoracic", "thoracolumbar", "lumbar"),
    "ordinal": ("third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"),
    "mm": ("3", "4", "6", "8", "11", "14"),
}
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
    "cardiac apex is rounded and slightly elevated",
    "calcified hilar nodes resemble eggshells",
    "right paratracheal stripe is thin and sharply defined",
    "aortopulmonary window is concave",
    "a right-sided arch deviates the trachea, a congenital variant",
    "substernal goiter displaces the airway",
    "fat pad fills the {side} cardiophrenic angle",
    "pericardial calcification encircles the ventricle",
    "azygos vein is distended, implying elevated central venous pressure",
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
    "thyroidectomy clips at the thoracic inlet",
    "gastric band and its reservoir are partially imaged",
    "transjugular intrahepatic shunt stent projects over the liver",
    "biliary stent and percutaneous gastrostomy are incidentally included",
    "Harrington rods stabilize the {region} spine",
    "esophageal stent extends through the mediastinum",
    "ventriculoperitoneal shunt tubing descends along the {side} hemithorax",
    "spinal stimulator electrodes overlie the midline",
    "left atrial appendage occluder is visible",
    "retained bullet fragment lodged in the {side} axilla",
    "nipple rings and a necklace cast external shadows",
    "reverse {side} shoulder prosthesis in anatomic alignment",
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
    ("sclerotic {region} vertebral metastasis cannot be distinguished from a bone island", ()),
    ("cervical ribs are rudimentary and congenital", ()),
    ("bifid anterior {ordinal} {side} rib, a normal variant", ()),
    ("gibbus and {region} ankylosis, as in spondylitis", ()),
    ("{side} subacromial spurring with a loose ossicle", ()),
    ("mottled humeral sclerosis, perhaps avascular necrosis or enchondroma", ()),
    ("costochondral junctions are heavily ossified", ()),
    ("renal osteodystrophy with a rugger jersey pattern", ()),
    ("healed {side} {ordinal} rib fracture with callus", (("Fracture", 1.0),)),
    ("a remote {side} clavicular fracture is malunited", (("Fracture", 1.0),)),
    ("nondisplaced {side} {ordinal} lateral rib fracture, age uncertain", (("Fracture", 1.0),)),
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
    "no pneumoperitoneum beneath either leaflet",
    "stomach bubble is in its customary location",
    "vertebral heights and alignment are maintained",
    "sternum, ribs, scapulae and clavicles are without aggressive features",
    "visualized portions of the liver and spleen are not displaced",
    "no bony destruction",
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
    ("{mm} mm noncalcified nodule in the {side} {lobe} lobe, for which CT is proposed", (("Lung Lesion", 1.0),)),
    ("spiculated mass of the {side} {lobe} lobe with pleural tethering", (("Lung Lesion", 1.0),)),
    ("thin-walled bulla at the {side} apex", ()),
    ("{side} {lobe} lobe hamartoma with popcorn mineralization", (("Lung Lesion", 1.0),)),
    ("thickened minor fissure", (("Pleural Other", 1.0),)),
    ("{side} apical cap, smooth and symmetric with age", (("Pleural Other", -1.0),)),
    ("reticular subpleural honeycombing of idiopathic origin", ()),
    ("postradiation fibrosis with paramediastinal retraction and traction", ()),
    ("volume asymmetry after {side} {lobe} lobectomy with compensatory hyperexpansion", ()),
    ("oligemic, attenuated peripheral vasculature from panlobular destruction", ()),
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
    "kyphotic posture foreshortens the thorax",
    "grid cutoff degrades one hemithorax",
    "skin folds simulate an edge laterally",
    "the extreme bases are clipped by collimation",
    "assessment is hampered by dense soft tissue attenuation and obesity",
    "breathing artifact blurs the diaphragm",
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
# Not said of a patient with an abnormal heart, lungs or bones.
ALL_NORMAL = tuple(text for text in NOTHING_ACUTE if "normal" in text.split() or "unremarkable" in text)
ADVICE = (
    "Follow-up radiographs after treatment are recommended.",
    "Recommend repeat imaging in 6 to 8 weeks to document clearing.",
    "Clinical correlation is advised.",
    "Consider CT for further characterization if symptoms persist.",
    "A dedicated PA and lateral examination would be helpful when the patient is able to stand.",
    "Short-term surveillance is suggested.",
    "Please correlate with laboratory values and fever curve.",
    "Attention on future studies.",
    "Decubitus imaging may be obtained if quantification is desired.",
    "Ultrasound could guide sampling should this be indicated.",
    "Echocardiography may help determine the cause.",
    "Continued daily monitoring while hospitalized is reasonable.",
    "The referring team was informed by pager.",
    "Discussed with the house officer during morning rounds.",
    "Electronic alert was entered into the critical results dashboard.",
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

# Headers, and how MIMIC-CXR misspells them.
REASONS = (
    *("INDICATION", "INDICATION", "INDICATION", "HISTORY", "REASON FOR EXAM", "REASON FOR EXAMINATION"),
    *("CLINICAL HISTORY", "CLINICAL INFORMATION", "CLINICAL INDICATION"),
)
IMPRESSION = ("IMPRESSION", "CONCLUSION")
MISSPELT = {
    "FINDINGS": ("FINDINS", "FINDNGS", "FINDING"),
    "IMPRESSION": ("IMPRESSON", "IMPRESION", "IMPRSSION"),
    "COMPARISON": ("COMPARISION", "COMPARSION"),
}
