"""The training run.

`loop` trains, step by step, and `step` runs one step on any hardware. `setup` finds a run's cohort, tokenizer and start
weights, `schedule` sets the learning rate and averages weights, `checkpoint` and `run_folder` save and restore, `metrics`
keeps metrics.csv, and `divergence` stops a run whose loss explodes. `dry_run` and `memory` say beforehand what a run costs.
"""

from medst.pretrain.loop import pretrain
from medst.pretrain.schedule import learning_rate, make_optimiser
from medst.pretrain.step import Step, native_bf16

__all__ = ["Step", "learning_rate", "make_optimiser", "native_bf16", "pretrain"]
