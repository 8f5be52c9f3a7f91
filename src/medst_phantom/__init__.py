"""Synthetic patients with known findings, in the raw layouts of the data sets that `medst prepare` reads.

`findings.py` defines a finding. Two independent paths start there: `anatomy.py` and `radiograph.py` draw it;
`trajectory.py`, `sentences.py` and `reports.py` describe it over time. `mimic.py` combines both in the layouts of
MIMIC-CXR-JPG and MS-CXR-T, `others.py` in those of the other data sets, which have one file each.
"""

OTHER_TREES = ("rsna", "covidx", "chexpert-plus", "open-i")
"""Data sets that `others.py` writes. Random numbers depend on the order: add new ones at the end."""
