"""Synthetic patients with known truth, in the raw layouts of the data sets that `medst prepare` reads.

`truth.py` says what a finding is. From there two ways part and never touch: `anatomy.py` and `radiograph.py` draw
it, `trajectory.py`, `sentences.py` and `reports.py` tell its story. `write.py` brings both together as MIMIC-CXR-JPG and
MS-CXR-T, `trees.py` as the other data sets, one file each; both grow as `resume.py` says.
"""
