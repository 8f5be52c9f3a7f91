"""The paper's model with its known faults mended.

    medst pretrain COHORT RUN --recipe modern

A text encoder that sees word order, masks instead of phantom tokens, the bounded regression term, lateral experts that
start as a copy of the frontal ones, a temporal weight that rises over the first tenth of the steps. Never run here at
full size: that takes MIMIC-CXR and a GPU.
"""

from medst.recipes.settings import ObjectiveSettings, Recipe

RECIPE = Recipe(name="modern", objective=ObjectiveSettings(temporal_warmup=0.1))
