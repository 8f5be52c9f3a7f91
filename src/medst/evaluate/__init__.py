"""Benchmarks by the released protocols: a model and a cohort in, `results.json` out."""
