"""Ablation: how much each part of a recipe is worth. Trains variants with several seeds, as one job that can be stopped.

`design` states beforehand what is asked and which differences can be detected, `job` trains and measures, `table` has the
differences and says which of them survive the correction for the number of questions.
"""

from medst.ablate.job import ablate

__all__ = ["ablate"]
