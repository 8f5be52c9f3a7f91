"""Probes: how well a model's features teach classes or labels, with shares of the training rows.

Protocol `paper` (COVIDx, section 4.5): one linear layer on the frozen global feature; AdamW at 5e-4 with weight decay 1e-6,
batches of 96, at most 200 epochs, stopped after 10 without a better validation loss; the rows of a share are those of
pandas' `sample(frac, random_state=42)`. Protocol `strict`: the same with three draws of rows and weights, features scaled by
the drawn rows, and no patient of the test split in train or valid. With `finetune` the image encoder is trained too, on
random crops.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import softmax
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from medst.batch import crop_and_scale
from medst.cohort.store import Cohort
from medst.encode import BATCH, centre_crop
from medst.errors import MedstError
from medst.evaluate.classification import Classification, Split, read_classification
from medst.evaluate.intervals import Ranked, Statistic, accuracy, macro_accuracy, mean_of, scored
from medst.evaluate.leaks import shared_patients
from medst.evaluate.subjects import ModelSubject, Subject
from medst.evaluate.task import STRICT, LeftOut, Outcome, Question, Score
from medst.use import Model

SEEDS = {"paper": (42,), "strict": (42, 100, 666)}
ENOUGH = 2
"""Drawn rows that each class, or each value of a label, needs."""


@dataclass(frozen=True)
class Plan:
    """Settings of the training of a layer, or of an encoder with it."""

    lr: float
    weight_decay: float
    batch: int
    epochs: int
    patience: int


LINEAR = Plan(lr=5e-4, weight_decay=1e-6, batch=96, epochs=200, patience=10)
FINETUNING = Plan(lr=5e-5, weight_decay=0.05, batch=32, epochs=50, patience=5)


def fits(cohort: Cohort, question: Question) -> bool:
    """Whether the cohort has classes, or pairs with labels."""
    pairs = cohort.pairs
    return cohort.labelled is not None or (pairs is not None and pairs["labels"].null_count() < pairs.height)


def probe(subject: Subject, cohort: Cohort, question: Question = STRICT) -> Outcome:
    """Measure a subject. Findings are shares of the training rows, followed by the label where there are several.

    Raises:
        MedstError: there are no labels, a split or class is missing, the validation loss is never finite, or, under
            protocol strict, patients of the test split are in another one.
    """
    data = read_classification(cohort)
    outcome = Outcome(classes=[] if data.several else data.names)
    outcome.warnings += shared_patients(cohort, ("train", "valid"), refuse=question.protocol == "strict")
    outcome.left_out += [LeftOut(name, 0, reason) for name, reason in data.left_out.items()]
    learn: Callable[[Split, int], np.ndarray] = (
        partial(_finetuned, _model_of(subject), cohort, data)
        if question.finetune
        else _Linear(subject, cohort, data, question)
    )
    train_split, test, seeds = data.splits["train"], data.splits["test"], SEEDS[question.protocol]
    for fraction in question.fractions:
        lacking = _lacking(data, fraction, seeds)
        outcome.left_out += [LeftOut(finding, 0, reason) for finding, reason in lacking.items()]
        if len(lacking) == (len(data.names) if data.several else 1):
            continue
        drawn = [train_split[draw(len(train_split), fraction, seed)] for seed in seeds]
        outputs = [learn(learnt, seed) for seed, learnt in zip(seeds, drawn, strict=True)]
        outcome.train_rows[_share(fraction)] = len(drawn[0])
        score = _label_scores if data.several else _class_scores
        scores = score(data.names, outputs, test, _share(fraction), seeds, question)
        if lacking:
            reason = f"a mean over all labels needs each of them, and {len(lacking)} can't be measured"
            outcome.left_out.append(LeftOut(_share(fraction), 0, reason))
        outcome.scores += [one for one in scores if one.finding not in lacking and not (lacking and one is scores[0])]
        outcome.images |= {(one.finding, None): test.image[:, None] for one in scores}
        if not data.several:
            counted = confusion_matrix(test.target, outputs[0].argmax(1), labels=range(len(data.names)))
            outcome.confusion[_share(fraction)] = counted.tolist()
    return outcome


def draw(rows: int, fraction: float, seed: int) -> np.ndarray:
    """Draw the rows that pandas' `sample(frac=fraction, random_state=seed)` draws from `rows` rows, in its order.

    >>> draw(10, 0.3, 42).tolist()
    [8, 1, 5]
    """
    return np.random.RandomState(seed).choice(rows, size=round(fraction * rows), replace=False)


def _lacking(data: Classification, fraction: float, seeds: Sequence[int]) -> dict[str, str]:
    """The share, or those of its labels, for which a draw has fewer than `ENOUGH` rows of a class or value; and why."""
    target, share = data.splits["train"].target, _share(fraction)
    groups = {share: {name: target == place for place, name in enumerate(data.names)}}
    if data.several:
        values = {"positive": 1.0, "negative": 0.0}
        groups = {
            f"{share} {name}": {word: target[:, place] == value for word, value in values.items()}
            for place, name in enumerate(data.names)
        }
    rows, size, lacking = len(target), round(fraction * len(target)), dict[str, str]()
    orders = [draw(rows, 1.0, seed) for seed in seeds]  # smaller draws are the beginnings of these
    for finding, kinds in groups.items():
        found = [np.flatnonzero(mask[order]) for order in orders for mask in kinds.values()]
        needed = max(int(places[ENOUGH - 1]) + 1 if len(places) >= ENOUGH else rows + 1 for places in found)
        if needed <= size:
            continue
        held = ", ".join(
            f"{min(int(mask[order[:size]].sum()) for order in orders)} {name}" for name, mask in kinds.items()
        )
        remedy = "the training split has too few"
        if needed <= rows:
            remedy = f"{needed} rows would suffice, --fractions {math.ceil(1000 * needed / rows) / 1000:g}"
        lacking[finding] = f"{size} of {rows} training rows hold {held}; {ENOUGH} of each are needed: {remedy}"
    return lacking


def _model_of(subject: Subject) -> Model:
    if not isinstance(subject, ModelSubject):
        raise MedstError("--finetune trains an image encoder, and only a model has one; leave it out.")
    return subject.model


def _share(fraction: float) -> str:
    return f"{100 * fraction:g} %"


class _Linear:
    """A linear layer on features that are computed once, at the centre of every image, for all shares and draws."""

    def __init__(self, subject: Subject, cohort: Cohort, data: Classification, question: Question) -> None:
        self.features = {}
        for name, split in data.splits.items():
            self.features[name] = torch.from_numpy(subject.images(cohort, split.image).feature)
        every = data.splits["train"].image
        self.place = dict(zip(every.tolist(), range(len(every)), strict=True))
        self.data, self.strict = data, question.protocol == "strict"

    def __call__(self, learnt: Split, seed: int) -> np.ndarray:
        """Train on `learnt` and return the logits of the test rows."""
        x = self.features["train"][[self.place[row] for row in learnt.image.tolist()]]
        mean, scale = torch.zeros(x.shape[1]), torch.ones(x.shape[1])
        if self.strict:
            mean, scale = x.mean(0), x.std(0, correction=0).clamp(min=1e-6)
        sets = [(part - mean) / scale for part in (x, self.features["valid"], self.features["test"])]
        generator = torch.Generator().manual_seed(seed)
        layer = nn.Linear(x.shape[1], len(self.data.names))
        bound = x.shape[1] ** -0.5
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        targets = torch.from_numpy(learnt.target), torch.from_numpy(self.data.splits["valid"].target)
        train(layer, lambda rows: layer(sets[0][rows]), lambda: layer(sets[1]), targets, LINEAR, generator)
        with torch.inference_mode():
            return layer(sets[2]).numpy()


def train(
    module: nn.Module,
    logits: Callable[[Tensor], Tensor],
    valid_logits: Callable[[], Tensor],
    targets: tuple[Tensor, Tensor],
    plan: Plan,
    generator: torch.Generator,
) -> int:
    """Train `module` until the validation loss stops falling, and restore the weights of the best epoch.

    Args:
        logits: computes the logits of training rows, given their places.
        valid_logits: computes the logits of all validation rows.
        targets: targets of the training and of the validation rows.

    Returns:
        The number of the best epoch, from 1.

    Raises:
        MedstError: the validation loss was NaN or infinite at every epoch.
    """
    optimiser = torch.optim.AdamW(module.parameters(), lr=plan.lr, weight_decay=plan.weight_decay)
    best, best_epoch, kept = float("inf"), 0, copy.deepcopy(module.state_dict())
    for epoch in range(1, plan.epochs + 1):
        module.train()
        for rows in torch.randperm(len(targets[0]), generator=generator).split(plan.batch):
            optimiser.zero_grad()
            loss(logits(rows), targets[0][rows]).backward()
            optimiser.step()
        module.eval()
        with torch.no_grad():
            now = loss(valid_logits(), targets[1]).item()
        if now < best:
            best, best_epoch, kept = now, epoch, copy.deepcopy(module.state_dict())
        elif epoch - best_epoch >= plan.patience:
            break
    if not best_epoch:
        raise MedstError(
            f"the probe's validation loss is {now} from the first epoch on; the model's features are not finite, or the "
            "validation split has no certain label."
        )
    module.load_state_dict(kept)
    return best_epoch


def loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of classes, or of labels, of which the uncertain ones (NaN) don't count."""
    if target.ndim == 1:
        return F.cross_entropy(logits, target)
    certain = ~target.isnan()
    return F.binary_cross_entropy_with_logits(logits[certain], target[certain])


def _finetuned(model: Model, cohort: Cohort, data: Classification, learnt: Split, seed: int) -> np.ndarray:
    """Train the encoder together with a layer on `learnt` and return the logits of the test rows."""
    generator = torch.Generator().manual_seed(seed)
    encoder = copy.deepcopy(model.model.vision)
    device, size = model.device, model.model.settings.vision.image_size
    layer = nn.Linear(model.model.settings.vision.width, len(data.names)).to(device)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    module = nn.ModuleList([encoder, layer])
    room = cohort.images.shape[1] - model.crop

    def forward(rows: Tensor) -> Tensor:
        corners = torch.randint(0, room + 1, (len(rows), 2), generator=generator).to(device)
        stored = torch.from_numpy(np.asarray(cohort.images[learnt.image[rows.numpy()]])).to(device)
        pictures = crop_and_scale(stored, corners, model.crop, size)
        return layer(encoder.encode_view(pictures)[:, 0]).float().cpu()

    @torch.no_grad()
    def centred(split: Split) -> Tensor:
        rows = np.array_split(split.image, max(1, -(-len(split) // BATCH)))
        views = (encoder.encode_view(centre_crop(model, cohort.images[part])) for part in rows)
        return torch.cat([layer(view[:, 0]).cpu() for view in views])

    targets = (torch.from_numpy(learnt.target), torch.from_numpy(data.splits["valid"].target))
    train(module, forward, lambda: centred(data.splits["valid"]), targets, FINETUNING, generator)
    return centred(data.splits["test"]).numpy()


def _class_scores(
    names: list[str], outputs: list[np.ndarray], test: Split, share: str, seeds: Sequence[int], question: Question
) -> list[Score]:
    label, n = test.target, len(test)
    hits = [out.argmax(1) == label for out in outputs]
    metrics: list[tuple[str, float, list[Statistic]]] = [
        ("accuracy", float(np.bincount(label).max() / n), [partial(accuracy, hit) for hit in hits]),
        ("macro accuracy", 1 / len(names), [partial(macro_accuracy, hit, label) for hit in hits]),
        ("auroc", 0.5, [_macro_auroc(label, out) for out in outputs]),
    ]
    if len(names) == 2:
        areas: list[Statistic] = [Ranked(label == 1, out[:, 1] - out[:, 0]).average_precision for out in outputs]
        metrics.append(("average precision", float((label == 1).mean()), areas))
    return [
        scored(metric, share, statistics, test.patient, chance, question, seeds=seeds)
        for metric, chance, statistics in metrics
    ]


def _label_scores(
    names: list[str], outputs: list[np.ndarray], test: Split, share: str, seeds: Sequence[int], question: Question
) -> list[Score]:
    certain = ~np.isnan(test.target)
    areas = [  # (label, seed)
        [_label_auroc(test.target[:, place] == 1, out[:, place], certain[:, place]) for out in outputs]
        for place in range(len(names))
    ]
    by_seed = [mean_of(statistics) for statistics in zip(*areas, strict=True)]
    return [
        scored("auroc", share, by_seed, test.patient, 0.5, question, seeds=seeds),
        *(
            scored("auroc", f"{share} {name}", own, test.patient, 0.5, question, n=int(count), seeds=seeds)
            for name, own, count in zip(names, areas, certain.sum(0), strict=True)
        ),
    ]


def _macro_auroc(label: np.ndarray, out: np.ndarray) -> Statistic:
    """Mean over the classes of the AUROC of one against all others, by its probability."""
    probability = softmax(out, axis=1)
    ones = range(1, 2) if out.shape[1] == 2 else range(out.shape[1])
    return mean_of([Ranked(label == one, probability[:, one]).auroc for one in ones])


def _label_auroc(positive: np.ndarray, score: np.ndarray, certain: np.ndarray) -> Statistic:
    ranked = Ranked(positive[certain], score[certain])
    return lambda weights: ranked.auroc(weights[certain])
