"""What a benchmark measures, a subject: a model, or one of the baselines that stand beside it.

A subject gives features of images and embeddings of texts. The baselines know little: nothing at all, two thumbnails, the
words of a sentence, one study of two, or what random weights happen to compute. A model has learnt something only where it
beats all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float32
from numpy.typing import ArrayLike

from medst.cohort.store import Cohort
from medst.encode import ImageFeatures, Precision, embed_prompts, embed_texts, image_features
from medst.use import Model

THUMBNAIL = 16
"""Side of a thumbnail, in pixels."""


class Subject(Protocol):
    """Gives features of images and embeddings of texts."""

    def images(self, cohort: Cohort, rows: ArrayLike, *, laterals: ArrayLike | None = None) -> ImageFeatures:
        """Features of images of a cohort, as `medst.encode.image_features`."""

    def texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "text dim"]:
        """Embeddings of texts, in their order; rows of unit length, or zero where there is nothing to embed."""

    def prompts(self, prompts: Mapping[str, list[str]]) -> Float32[np.ndarray, "class dim"]:
        """The embedding of each class, from its prompts."""


@dataclass(frozen=True)
class ModelSubject:
    """A model.

    Attributes:
        model: trained or not.
        precision: arithmetic of its encoders.
        cache: folder for features of images, so that they are computed once; None keeps none.
    """

    model: Model
    precision: Precision = "fp32"
    cache: Path | None = None

    def images(self, cohort: Cohort, rows: ArrayLike, *, laterals: ArrayLike | None = None) -> ImageFeatures:
        """See `Subject`."""
        return image_features(self.model, cohort, rows, laterals=laterals, precision=self.precision, cache=self.cache)

    def texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "text dim"]:
        """See `Subject`."""
        return embed_texts(self.model, texts)

    def prompts(self, prompts: Mapping[str, list[str]]) -> Float32[np.ndarray, "class dim"]:
        """See `Subject`."""
        return embed_prompts(self.model, prompts)

    def untrained(self, seed: int) -> "ModelSubject":
        """The same with fresh weights, drawn from `seed`."""
        return ModelSubject(self.model.untrained(seed), self.precision)


@dataclass(frozen=True)
class Nothing:
    """A subject for which all images and all texts are the same: a classifier can only learn the most frequent answer."""

    def images(self, cohort: Cohort, rows: ArrayLike, *, laterals: ArrayLike | None = None) -> ImageFeatures:
        """See `Subject`."""
        return _alike(np.zeros((len(np.asarray(rows)), 1), dtype=np.float32))

    def texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "text dim"]:
        """See `Subject`."""
        return np.zeros((len(texts), 1), dtype=np.float32)

    def prompts(self, prompts: Mapping[str, list[str]]) -> Float32[np.ndarray, "class dim"]:
        """See `Subject`."""
        return np.zeros((len(prompts), 1), dtype=np.float32)


@dataclass(frozen=True)
class Thumbnails(Nothing):
    """A subject that sees an image as 16 x 16 pixels: means of the stored squares, from 0 to 1; laterals are ignored."""

    def images(self, cohort: Cohort, rows: ArrayLike, *, laterals: ArrayLike | None = None) -> ImageFeatures:
        """See `Subject`."""
        unique, place = np.unique(np.asarray(rows, dtype=np.int64), return_inverse=True)
        cell = cohort.images.shape[1] // THUMBNAIL
        found = np.empty((len(unique), THUMBNAIL**2), dtype=np.float32)
        for number, row in enumerate(unique):
            cells = cohort.images[row].reshape(THUMBNAIL, cell, THUMBNAIL, cell)
            found[number] = cells.mean((1, 3), dtype=np.float64).ravel() / 255
        return _alike(found[place.ravel()])


@dataclass(frozen=True)
class Words(Nothing):
    """A subject that knows a text's words and not their order.

    Attributes:
        weighted: tf-idf as scikit-learn computes it from the given texts; False takes each of a text's words once, and the
            cosine of two texts is the overlap of their words, |A and B| / sqrt(|A| |B|).
    """

    weighted: bool

    def texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "text dim"]:
        """See `Subject`."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        words = TfidfVectorizer(token_pattern=r"\w+", binary=not self.weighted, use_idf=self.weighted, dtype=np.float32)
        found: Float32[np.ndarray, "text dim"] = words.fit_transform(texts).toarray()
        return found


def _alike(rows: Float32[np.ndarray, "image dim"]) -> ImageFeatures:
    return ImageFeatures(rows, rows, rows)


@dataclass(frozen=True)
class Baseline:
    """What is measured beside a subject.

    Attributes:
        make: returns the baseline's subject, given that one and a seed; None if that one has no such baseline.
        changes: fields of `Question` that it is measured with.
        seeded: whether each seed gives another subject; the baseline is then their mean.
    """

    make: Callable[[Subject, int], Subject | None]
    changes: Mapping[str, Any] = field(default_factory=dict)
    seeded: bool = False


def _untrained(subject: Subject, seed: int) -> Subject | None:
    return subject.untrained(seed) if isinstance(subject, ModelSubject) else None


ONE_STUDY = {"current study alone": "current", "prior study alone": "prior"}
"""What a model that ignores time reaches: the subject itself, with the features of one of two studies."""
BASELINES: dict[str, Baseline] = {
    "majority answer": Baseline(lambda subject, seed: Nothing(), {"finetune": False}),
    "thumbnails": Baseline(
        lambda subject, seed: Thumbnails(),
        {"features": "concat", "tokens": "global", "laterals": None, "finetune": False},
    ),
    **{name: Baseline(lambda subject, seed: subject, {"features": side}) for name, side in ONE_STUDY.items()},
    "token overlap": Baseline(lambda subject, seed: Words(weighted=False)),
    "tf-idf": Baseline(lambda subject, seed: Words(weighted=True)),
    "untrained": Baseline(_untrained, seeded=True),
}
"""Baselines by the name that results.json uses; the registry says which of them a benchmark has."""
