"""A synthetic cohort with known truth, in the raw layouts of MIMIC-CXR-JPG and MS-CXR-T.

`truth.py` says what a finding is. From there two ways part and never touch: `anatomy.py` and `radiograph.py` draw
it, `trajectory.py`, `sentences.py` and `reports.py` tell its story. `write.py` brings both together.
"""
