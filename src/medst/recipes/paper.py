"""The paper's settings, as its released code computes them.

    medst pretrain paper COHORT RUN

Keeps what shaped the published numbers: a text encoder without word order, blank laterals and padding words in the local
loss, the unbounded regression, and lateral experts that start from random weights. 10 sequences per device on 2 devices. It
has not been run at full size, which takes MIMIC-CXR and two GPUs.
"""

from medst.recipes.settings import (
    DataSettings,
    ModelSettings,
    ObjectiveSettings,
    OptimiserSettings,
    Recipe,
    TextSettings,
    VisionSettings,
)

RECIPE = Recipe(
    name="paper",
    model=ModelSettings(
        vision=VisionSettings(lateral_start="random"),
        text=TextSettings(positions=False, token_types=False, close_cut_reports=False),
        phantom_tokens=True,
    ),
    objective=ObjectiveSettings(regression="released", masked=False, across_devices=False),
    data=DataSettings(temporal_from=4, balance=False),
    optimiser=OptimiserSettings(clip=0.0, skip_above=1000.0, explode_above=0.0),
)
