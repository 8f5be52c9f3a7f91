"""The paper's model with its known errors fixed.

    medst pretrain modern COHORT RUN

A text encoder that sees word order, masks instead of phantom tokens, the bounded regression, lateral experts that start as a
copy of the frontal ones, and a temporal weight that rises over the first tenth of the steps. It has not been run at full
size, which takes MIMIC-CXR and a GPU.
"""

from medst.recipes.settings import ObjectiveSettings, Recipe

COHORT = {
    "frontal": ("one-per-study", "else a study with two frontal images counts as two points in time"),
    "text": ("whole", "else decimals, dates and one-word findings are missing from the reports"),
    "intensity": ("window", "else DICOM intensities are scaled by their maximum, not as a viewer shows them"),
}
"""Options of `medst prepare` that this recipe expects, and the reasons."""

RECIPE = Recipe(name="modern", objective=ObjectiveSettings(temporal_warmup=0.1))
