"""Pre-training.

`loop` trains a `training.Training`, `step` runs one step on any hardware, `validate` computes the losses of a split.
`setup` opens cohort and tokenizer, `schedule` sets the learning rate and averages weights. `checkpoint`,
`metrics` and `environment` are the run's files. `signals` and `divergence` stop a run. `dry_run` and `memory` estimate
beforehand what a run costs.
"""

from medst.pretrain.loop import pretrain
from medst.pretrain.schedule import learning_rate, make_optimiser
from medst.pretrain.step import Step, native_bf16

__all__ = ["Step", "learning_rate", "make_optimiser", "native_bf16", "pretrain"]
