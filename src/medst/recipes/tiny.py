"""Small enough for a laptop's CPU: the recipe of `medst demo`.

    medst pretrain tiny COHORT RUN

Like `modern`, but with pictures of 112 x 112 pixels and encoders of about two million parameters, from random weights.
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
        vision=VisionSettings(image_size=112, patch_size=16, channels=1, width=128, depth=4, heads=2, mlp_ratio=3.0),
        text=TextSettings(width=128, layers=3, heads=2, intermediate=384, dropout=0.0),
        projection_hidden=256,
        embedding=64,
    ),
    # From random weights, the local loss soon falls by telling words apart by their order alone, and the temporal loss has
    # nothing to align at first; both would drown the contrast, from which the encoders learn to see.
    objective=ObjectiveSettings(local_weight=0.02, temporal_weight=0.25, temporal_warmup=1.0),
    data=DataSettings(sequences_per_batch=16),
    optimiser=OptimiserSettings(
        lr=5e-4, lr_min=1e-6, weight_decay=0.05, decay_matrices_only=True, warmup=0.05, epochs=14, patience=0
    ),
)
