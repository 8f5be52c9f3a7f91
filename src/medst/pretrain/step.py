"""One training step: on one process or many, on CPUs or GPUs, replicated or sharded, at once or in parts.

A batch that does not fit is computed in parts, with the same result. The encoders run over the parts and keep no
activations; heads and losses run once over the features of all parts; then each part is encoded again, and the gradients of
its features go back through it (cached-gradient contrast: Gao et al., 2021, "Scaling deep contrastive learning batch size
under memory limited setup"). Losses, statistics and negatives are those of the full batch.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from importlib.util import find_spec
from itertools import accumulate

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from medst.batch import Batch
from medst.distributed import Devices, random_state, set_random_state
from medst.errors import MedstError
from medst.model.medst import Features, MedST
from medst.model.vision import Block
from medst.objective import Objective
from medst.recipes.objective import LOSSES
from medst.recipes.settings import DataSettings, Recipe


class Step(nn.Module):
    """Model and objective behind one forward call, so that DDP and FSDP see all parameters.

    Heads and weightings that no active loss uses are frozen.
    """

    def __init__(self, model: MedST, objective: Objective, data: DataSettings) -> None:
        super().__init__()
        self.model, self.objective, self.crop = model, objective, data.crop
        # DDP waits for a gradient of every parameter that requires one, so those that no loss reaches must not.
        active = [loss for loss in LOSSES if loss.weights(objective.settings)]
        idle = [getattr(objective, loss.name) for loss in LOSSES if loss not in active]
        for heads in {"global", "local"} - {loss.heads for loss in active}:
            idle += [getattr(model, f"{side}_{heads}") for side in ("image", "text")]
        for module in idle:
            module.requires_grad_(False)

    def forward(
        self,
        batch: Batch,
        shares: Mapping[str, float] | None = None,
        *,
        encode_only: bool = False,
        features: Features | None = None,
    ) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            batch: pictures and reports; with `features`, only its sequences are used.
            shares: factors on the losses' weights, see `Objective.forward`.
            encode_only: stop after the encoders, and return their `Features` by name.
            features: the encoders' output, if it is already known.
        """
        if features is None:
            frontal, lateral = batch.pictures(self.crop, self.model.settings.vision.image_size)
            features = self.model.encode(frontal, lateral, batch.lateral_of, batch.pieces, batch.attention_mask)
        if encode_only:
            return vars(features)
        embedded = self.model.project(features)
        with torch.autocast(embedded.image.device.type, enabled=False):
            return self.objective(embedded, batch.steps, batch.step_mask, batch.days, shares)


def native_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bf16 natively, so that it is faster."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return device.type == "xpu" and torch.xpu.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def computes_in_bf16(recipe: Recipe, device: torch.device) -> bool:
    """Whether the encoders compute in bf16 on this device: if the recipe says so, or with `auto` if that is native."""
    return recipe.run.precision == "bf16" or (recipe.run.precision == "auto" and native_bf16(device))


def make_accelerator(recipe: Recipe, folder: str) -> Accelerator:
    """Make accelerate's view of all processes, with the trackers that the recipe asks for.

    Raises:
        MedstError: the logger is not installed, in which case accelerate would silently log nowhere.
    """
    logger = recipe.run.logger
    if logger == "wandb" and find_spec("wandb") is None:
        raise MedstError("--run.logger wandb: wandb is not installed; pip install 'medst[wandb]'.")
    return Accelerator(
        # Without this, several processes on a CPU count as separate runs.
        cpu=not torch.accelerator.is_available(),
        mixed_precision="no",
        log_with=None if logger == "csv" else logger,
        project_dir=folder,
    )


class Engine:
    """Runs forward and backward passes on any hardware.

    Attributes:
        bare: the step as given, with unchanged names of parameters.
        module: the same, wrapped for several processes; called for forward passes.
        bf16: whether the encoders compute in bf16.
        parts: batches of a step on this device.
    """

    def __init__(self, accelerator: Accelerator, recipe: Recipe, step: Step) -> None:
        self.accelerator, self.recipe = accelerator, recipe
        self.device = accelerator.device
        self.world, self.rank = accelerator.num_processes, accelerator.process_index
        self.bf16 = computes_in_bf16(recipe, self.device)
        if recipe.run.checkpoint_activations:
            step.model.checkpoint_activations()
        if self.world > 1 and recipe.objective.across_devices:
            step.objective.devices = Devices(self.rank, self.world)
            step.model.normalise_over(step.objective.devices)
        self.parts = recipe.optimiser.accumulate
        self.sharded = recipe.run.engine == "fsdp"
        if self.sharded and self.world == 1:
            raise MedstError(
                "--run.engine fsdp shards over several processes; start them with torchrun, or give --run.engine ddp."
            )
        self.bare = step.to(self.device)
        self.module: nn.Module = self.bare
        if self.sharded:
            # Not through accelerate, which silently uses DDP on a CPU, where this could then not be tested.
            for module in self.bare.modules():
                if isinstance(module, Block) or module in [*self.bare.model.text.bert.encoder.layer]:
                    fully_shard(module)
            fully_shard(self.bare)
        elif self.parts == 1 and self.world > 1:
            self.module = accelerator.prepare(self.bare)

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """Context in which the encoders compute in bf16, if they should."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def forward(
        self, batches: list[Batch], shares: Mapping[str, float]
    ) -> tuple[dict[str, Tensor], Callable[[], None]]:
        """Compute the losses of this device's parts of a step; returns them and a function that computes their gradients."""
        if len(batches) == 1:
            with self.autocast():
                losses = self.module(batches[0], shares)
            return losses, losses["loss"].backward
        states, encoded = [], []
        with torch.no_grad(), self.autocast():
            for batch in batches:
                states.append(random_state(self.device))
                encoded.append(Features(**self.module(batch, encode_only=True)))
        after = random_state(self.device)
        features = [part.as_leaves() for part in encoded]
        joint = Features.join(features)
        with self.autocast():
            losses = self.module(_sequences(batches), shares, features=joint)

        def backward() -> None:
            losses["loss"].backward()
            for batch, state, part in zip(batches, states, features, strict=True):
                set_random_state(state, self.device)
                with self.autocast():
                    again = self.module(batch, encode_only=True)
                # Features that no loss uses have no gradient.
                learn = {name: leaf.grad for name, leaf in vars(part).items() if leaf.grad is not None}
                torch.autograd.backward([again[name] for name in learn], [*learn.values()])
            set_random_state(after, self.device)
            if self.world > 1 and not self.sharded:
                self._average_gradients()

        return losses, backward

    def _average_gradients(self) -> None:
        """Average over the devices, once per step; DDP would do so for each part."""
        for parameter in self.bare.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= self.world

    def clip(self, largest: float) -> float:
        """Scale the gradient down to a norm of at most `largest`; returns the norm before."""
        norm = torch.nn.utils.clip_grad_norm_(self.bare.parameters(), largest)
        return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()

    def mean(self, losses: dict[str, Tensor]) -> dict[str, float]:
        """Average over the devices, so that all of them see the same numbers and stop at the same step."""
        values = torch.stack([value.detach() for value in losses.values()])
        if self.world > 1:
            values = self.accelerator.reduce(values, reduction="mean")
        return dict(zip(losses, values.tolist(), strict=True))

    def any_device(self, *answers: bool) -> list[bool]:
        """For each of several answers, whether any device gives it."""
        own = torch.tensor(answers, dtype=torch.float32, device=self.device)
        total = self.accelerator.reduce(own) if self.world > 1 else own
        return [count > 0 for count in total.tolist()]

    def compile(self, pictures: int, always: bool) -> tuple[bool, str]:
        """Compile the image encoder's blocks if that makes them faster.

        Args:
            pictures: of a batch; one block is timed with this many.
            always: compile them in any case.

        Returns:
            Whether they are compiled, and a note with the reason.
        """
        vision = self.bare.model.vision
        if not always:
            seconds = {}
            for name in ("plain", "compiled"):
                with torch.random.fork_rng():
                    block = Block(vision.settings).to(self.device)
                if name == "compiled":
                    block.compile(dynamic=True)
                seconds[name] = self._time(block, pictures, 1 + vision.patches)
            mean = self.mean({name: torch.tensor(value, device=self.device) for name, value in seconds.items()})
            plain, compiled = mean["plain"], mean["compiled"]
            line = f"a block takes {1000 * compiled:.1f} ms compiled and {1000 * plain:.1f} ms as it is"
            if compiled > 0.97 * plain:
                return False, f"torch.compile is off: {line}"
        for each in vision.blocks:
            each.compile(dynamic=True)
        return True, "torch.compile is on" + ("" if always else f": {line}")

    def _time(self, block: nn.Module, pictures: int, tokens: int) -> float:
        width = self.bare.model.settings.vision.width
        x = torch.zeros(max(2, pictures), tokens, width, device=self.device, requires_grad=True)
        best = float("inf")
        for _ in range(4):
            began = time.perf_counter()
            with self.autocast():
                out = block(x, tokens).float().sum()
            out.backward()
            out.item()
            best = min(best, time.perf_counter() - began)
        return best

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Context without dropout and gradients, and with the first device's statistics on all devices."""
        self.bare.eval()
        if self.world > 1:
            for buffer in filter(Tensor.is_floating_point, self.bare.buffers()):
                dist.broadcast(buffer, 0)
        with torch.no_grad(), self.autocast():
            yield
        self.bare.train()


def _sequences(batches: list[Batch]) -> Batch:
    """Join the sequences of all parts, over the pairs of all parts; all other fields are the first part's."""
    starts = accumulate((len(batch.pair) for batch in batches), initial=0)
    joined = {name: torch.cat([getattr(batch, name) for batch in batches]) for name in ("step_mask", "days", "pair")}
    steps = torch.cat([batch.steps + start for batch, start in zip(batches, starts, strict=False)])
    return replace(batches[0], steps=steps, **joined)
