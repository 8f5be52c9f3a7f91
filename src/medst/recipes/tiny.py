"""Small enough for a laptop's CPU: the recipe of `medst demo`.

    medst pretrain COHORT RUN --recipe tiny

Everything `modern` does, on pictures of 112 pixels with a ViT and a text encoder of a few million parameters.
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
    name="tiny",
    model=ModelSettings(
        vision=VisionSettings(image_size=112, patch_size=14, channels=1, width=192, depth=6, heads=3, mlp_ratio=3.0),
        text=TextSettings(vocabulary=0, width=128, layers=3, heads=2, intermediate=384, dropout=0.0),
        projection_hidden=256,
        embedding=64,
    ),
    objective=ObjectiveSettings(temporal_warmup=0.3),
    data=DataSettings(sequences_per_batch=16),
    optimiser=OptimiserSettings(
        lr=1e-3, lr_min=1e-6, weight_decay=0.05, decay_matrices_only=True, warmup=0.1, epochs=10, patience=0
    ),
)
