"""`medst.load`: a model with the calls that people use it by."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from medst.batch import centre, tokenize
from medst.distributed import default_device
from medst.errors import MedstError
from medst.use.geometry import Geometry
from medst.use.outputs import Grounding, HeatMap, ImageEmbeddings, Progression, Study, TextEmbeddings, Timeline
from medst.use.pictures import Picture, Source, read_picture, squares
from medst.use.progression import progression
from medst.weights import Loaded
from medst.weights import load as load_weights

PAIRS = 32
"""Pairs a forward pass."""
TEXTS = 64
"""Texts a forward pass."""

Images = Source | Study | Sequence[Source | Study] | ImageEmbeddings
Texts = str | Sequence[str] | TextEmbeddings


def load(path: Path | str, *, tokenizer: Path | str | None = None, device: str | None = None) -> "Model":
    """A model, ready to use.

    Args:
        path: a model folder, a released Med-ST or MGCA checkpoint, or a Hugging Face hub id.
        tokenizer: for a released checkpoint, the folder with Bio_ClinicalBERT's vocab.txt, or its hub id; if not given,
            the checkpoint's own folder.
        device: as torch names it; if not given, the accelerator where there is one, as `pretrain` does.

    Raises:
        MedstError: there is no such model, or it is damaged, carries pickled code or lacks its tokenizer; or no such device.
    """
    loaded = load_weights(path, tokenizer=tokenizer)
    chosen = device or default_device()
    try:
        loaded.model.to(chosen)
    except (RuntimeError, AssertionError) as error:
        raise MedstError(f"device '{chosen}' can't be used here ({str(error).splitlines()[0]}).") from error
    return Model.of(loaded)


@dataclass(repr=False)
class Model(Loaded):
    """A model with the calls that people use it by.

    Whatever is given is encoded in batches of a fixed size on the model's device; what a picture or a text gives depends on
    nothing beside it, up to rounding.
    """

    @classmethod
    def of(cls, loaded: Loaded) -> "Model":
        """The same model; nothing is copied."""
        return cls(loaded.model, loaded.objective, loaded.tokenizer, loaded.recipe, loaded.fingerprint)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "Model":
        return cls.of(super()._from_pretrained(model_id=model_id, **options))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def encode_image(self, frontal: Images, lateral: Source | Sequence[Source | None] | None = None) -> ImageEmbeddings:
        """Embed pairs.

        Args:
            frontal: one frontal view or several; or one `Study` or several, which bring their laterals along.
            lateral: the lateral view of each, in the same order; None where there is none.

        Raises:
            MedstError: a picture can't be read or used (the message says which and why), or there are not as many
                laterals as frontal views.

        >>> images = model.encode_image(frontal, lateral)
        >>> images.embedding.shape, images.patches.shape
        (torch.Size([1, 128]), torch.Size([1, 2, 2, 2, 128]))
        >>> len(model.encode_image([prior, current]))
        2
        """
        if isinstance(frontal, ImageEmbeddings):
            return frontal
        pairs = _pairs(frontal, lateral)
        settings, crop = self.model.settings, self.recipe.data.crop
        side, dim = settings.vision.image_size // settings.vision.patch_size, settings.embedding
        embedding, patches = torch.empty(len(pairs), dim), torch.zeros(len(pairs), 2, side, side, dim)
        geometry: list[tuple[Geometry, Geometry | None]] = []
        for start in range(0, len(pairs), PAIRS):
            rows = slice(start, start + PAIRS)
            pictures = [_read(f"pair {start + i + 1} of {len(pairs)}", *pair) for i, pair in enumerate(pairs[rows])]
            embedding[rows], found = self._encode(pictures)
            patches[rows] = found.unflatten(1, (2, side, side))
            geometry += [(front.geometry, None if beside is None else beside.geometry) for front, beside in pictures]
        return ImageEmbeddings(
            embedding,
            patches,
            torch.tensor([beside is not None for _, beside in geometry], dtype=torch.bool),
            tuple(front for front, _ in geometry),
            tuple(beside for _, beside in geometry),
            crop,
        )

    def _encode(self, pairs: list[tuple[Picture, Picture | None]]) -> tuple[Tensor, Tensor]:
        """Embeddings (pair, dim) and patches (pair, 2 views of patches, dim), zero where there is no lateral view."""
        model, size = self.model, self.model.settings.vision.image_size

        def pictures(of: list[Picture]) -> Tensor:
            return centre(torch.from_numpy(squares(of)).to(self.device), self.recipe.data.crop, size)

        frontal, beside = pictures([front for front, _ in pairs]), [p for _, p in pairs if p is not None]
        if beside:
            of = torch.tensor([i for i, (_, p) in enumerate(pairs) if p is not None], device=self.device)
            feature, patches, mask = model.vision(frontal, pictures(beside), of)
        else:
            tokens = model.vision.encode_view(frontal)
            feature, patches = tokens[:, 0], F.pad(tokens[:, 1:], (0, 0, 0, tokens.shape[1] - 1))
            mask = torch.arange(patches.shape[1], device=self.device).expand(len(pairs), -1) < tokens.shape[1] - 1
        return model.image_global(feature).cpu(), model.image_local.tokens(patches, mask).cpu()

    @torch.no_grad()
    def encode_text(self, texts: Texts) -> TextEmbeddings:
        """Embed texts, each alone; those longer than the model's `text.pieces` word pieces are cut.

        Args:
            texts: one or several, none empty.

        Raises:
            MedstError: a text is empty, not a string, or not valid Unicode.

        >>> model.encode_text(["The effusion has resolved.", "no pneumonia"]).embedding.shape
        torch.Size([2, 128])
        """
        if isinstance(texts, TextEmbeddings):
            return texts
        if not isinstance(texts, (str, Iterable)):
            raise MedstError(f"texts are a string or several, not {type(texts).__name__}.")
        given = (texts,) if isinstance(texts, str) else tuple(texts)
        for number, text in enumerate(given):
            which = f"text {number + 1} of {len(given)}"
            if not isinstance(text, str) or not text.strip():
                raise MedstError(f"{which} is empty or not a string.")
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise MedstError(f"{which} has half a surrogate pair, which is not a letter; decode the text again.")
        found = [self._read_texts(given[start : start + TEXTS]) for start in range(0, len(given), TEXTS)]
        most = max((words.shape[1] for _, words, _ in found), default=0)
        dim = self.model.settings.embedding
        return TextEmbeddings(
            given,
            torch.cat([torch.empty(0, dim), *(embedding for embedding, _, _ in found)]),
            torch.cat([torch.empty(0, most, dim), *(F.pad(w, (0, 0, 0, most - w.shape[1])) for _, w, _ in found)]),
            torch.cat([torch.empty(0, most).bool(), *(F.pad(m, (0, most - m.shape[1])) for _, _, m in found)]),
        )

    def _read_texts(self, texts: tuple[str, ...]) -> tuple[Tensor, Tensor, Tensor]:
        model = self.model
        ids, attention = tokenize(self.tokenizer, list(texts), model.settings.text.pieces)
        feature, words, mask = model.text(ids.to(self.device), attention.to(self.device))
        return model.text_global(feature).cpu(), model.text_local.tokens(words, mask).cpu(), mask.cpu()

    def similarity(self, image: Images, text: Texts) -> Float[Tensor, "pair text"]:
        """Cosine of each pair and each text, from -1 to 1.

        Raises:
            MedstError: as `encode_image` and `encode_text`.

        >>> model.similarity([prior, current], ["edema", "pneumothorax", "no finding"]).shape
        torch.Size([2, 3])
        """
        return self.encode_image(image).embedding @ self.encode_text(text).embedding.T

    def ground(self, image: Images, text: str | TextEmbeddings) -> list[Grounding]:
        """Where a phrase is in each pair.

        The local loss (paper, section 3.3) lets words look for their patches; a patch's value is the mean over the phrase's
        words of their cosine with it.

        Args:
            image: one pair or several.
            text: one phrase.

        Returns:
            A heat map for each view of each pair.

        Raises:
            MedstError: as `encode_image` and `encode_text`; or several phrases.

        >>> [found] = model.ground(current, "right pleural effusion")
        >>> found.frontal.pixels().shape, found.lateral.pixels().shape
        ((480, 400), (500, 420))
        """
        images, phrase = self.encode_image(image), self.encode_text(text)
        if len(phrase) != 1:
            raise MedstError(f"ground takes one phrase, not {len(phrase)}.")
        words = phrase.words[0][phrase.word_mask[0]]
        grids = (images.patches @ words.mean(0)).numpy()
        whole = (images.embedding @ phrase.embedding[0]).tolist()
        return [
            Grounding(
                phrase.texts[0],
                HeatMap(grid[0], images.frontal[i], images.crop),
                None if (beside := images.lateral[i]) is None else HeatMap(grid[1], beside, images.crop),
                whole[i],
            )
            for i, grid in enumerate(grids)
        ]

    def compare(self, prior: Images, current: Images, finding: str) -> Progression:
        """What became of a finding between two studies, see `medst.use.progression`.

        Args:
            prior: the earlier study.
            current: the later one.
            finding: as a radiologist names it, for instance "pleural effusion".

        Raises:
            MedstError: as `encode_image`; or not one study each; or no finding.

        >>> found = model.compare(prior, current, "pleural effusion")
        >>> round(found.improving + found.stable + found.worsening, 6)
        1.0
        """
        before, after = self.encode_image(prior), self.encode_image(current)
        if len(before) != 1 or len(after) != 1:
            raise MedstError(f"compare takes one study and one study, not {len(before)} and {len(after)}.")
        return progression(self, before.embedding[0], after.embedding[0], finding)

    def timeline(
        self, studies: Source | Study | Sequence[Source | Study], phrases: str | Sequence[str] | TextEmbeddings
    ) -> Timeline:
        """Phrases over a patient's studies.

        Args:
            studies: put in time order if each has a time; frontal views alone, such as paths, stay in the order given.
            phrases: one or several.

        Raises:
            MedstError: as `encode_image` and `encode_text`; or there are no studies, or some have a time and others none.

        >>> line = model.timeline([current, prior], ["edema", "pneumonia"])
        >>> [study.time.month for study in line.studies], line.similarity.shape
        ([1, 3], torch.Size([2, 2]))
        """
        given = [each if isinstance(each, Study) else Study(each) for each in _each(studies)]
        if not given:
            raise MedstError("a time line needs a study.")
        ordered = [given[i] for i in time_order(given)]
        images, texts = self.encode_image(ordered), self.encode_text(phrases)
        return Timeline(tuple(ordered), texts.texts, images.embedding @ texts.embedding.T, images)


def time_order(studies: Sequence[Study]) -> list[int]:
    """Places of the studies in time order; as they are given where none has a time.

    Raises:
        MedstError: some have a time or a time zone and others none.
    """
    times = [study.time for study in studies if study.time is not None]
    if not times:
        return list(range(len(studies)))
    if len(times) < len(studies):
        raise MedstError(f"{len(studies) - len(times)} of {len(studies)} studies have no time; give all or none.")
    if len({time.tzinfo is None for time in times}) > 1:
        raise MedstError("some studies' times have a time zone and others none; give all or none one.")
    return sorted(range(len(studies)), key=times.__getitem__)


def _pairs(frontal: Images, lateral: Source | Sequence[Source | None] | None) -> list[tuple[Source, Source | None]]:
    several = list(_each(frontal))
    if any(isinstance(each, Study) for each in several):
        if lateral is not None or not all(isinstance(each, Study) for each in several):
            raise MedstError("give studies alone: each brings its own lateral view.")
        return [(each.frontal, each.lateral) for each in several if isinstance(each, Study)]
    beside: list[Source | None] = [None] * len(several) if lateral is None else list(_each(lateral))
    if len(beside) != len(several):
        raise MedstError(f"{len(several)} frontal but {len(beside)} lateral views; give None where there is none.")
    return [(front, side) for front, side in zip(several, beside, strict=True) if not isinstance(front, Study)]


def _each(given: object) -> Iterator:
    """One as a list of one, several as they are; a four-dimensional array or tensor is several pictures."""
    several = isinstance(given, (np.ndarray, Tensor)) and given.ndim == 4
    if isinstance(given, Tensor) and given.layout != torch.strided:
        several = False  # can't be taken apart; the reader refuses it
    if isinstance(given, (list, tuple)) or several:
        return iter(given)  # type: ignore[call-overload]
    return iter([given])


def _read(name: str, frontal: Source, lateral: Source | None) -> tuple[Picture, Picture | None]:
    try:
        return read_picture(frontal), None if lateral is None else read_picture(lateral)
    except MedstError as error:
        raise type(error)(f"{name}: {error}") from error
