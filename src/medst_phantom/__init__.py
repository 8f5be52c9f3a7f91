"""Synthetic patients with known truth, in the raw layouts of the data sets that `medst prepare` reads.

`findings.py` says what a finding is. From there two ways part and never touch: `anatomy.py` and `radiograph.py` draw
it, `trajectory.py`, `sentences.py` and `reports.py` tell its story. `mimic.py` brings both together as MIMIC-CXR-JPG and
MS-CXR-T, `others.py` as the other data sets, one file each; both grow as `output_folder.py` says.
"""
