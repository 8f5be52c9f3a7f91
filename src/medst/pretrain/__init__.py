"""The training run, over everything below it.

`run` is the loop, `begin` what a run begins with, `engine` what carries a step out on any hardware, `schedule` the optimiser
with its learning rate and its averaged weights, `states` what a run needs to resume, `watch` what stops it, `dry_run` what
it would take.
"""

from medst.pretrain.engine import Step, native_bf16
from medst.pretrain.run import pretrain
from medst.pretrain.schedule import learning_rate, make_optimiser

__all__ = ["Step", "learning_rate", "make_optimiser", "native_bf16", "pretrain"]
