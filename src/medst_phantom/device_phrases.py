"""Words for tubes, lines and implants in reports; data only, `background.py` chooses among them.

No sentence compares with an earlier study unless it stands under 'stable', 'new' or 'removed'.
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
