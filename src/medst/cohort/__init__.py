"""Turn raw data sets into cohorts on disk: one file per data set, listed in `registry.py`; `store.py` opens a cohort."""
