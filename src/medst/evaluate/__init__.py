"""Benchmarks: a model and cohorts in, `results.json` out."""
