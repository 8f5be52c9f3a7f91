"""`medst.load`: a model with the calls that people use."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard, PyTorchModelHubMixin, snapshot_download
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from medst import __version__, weights
from medst.distributed import default_device
from medst.encode import BATCH, batch_size, encode_pictures, encode_texts
from medst.errors import MedstError
from medst.hub import find
from medst.model.medst import MedST
from medst.objective import Objective
from medst.recipes.settings import Recipe
from medst.use.compare import presence_axis, presence_prompts, progression
from medst.use.outputs import Grounding, HeatMap, ImageEmbeddings, Progression, TextEmbeddings, Timeline
from medst.use.pictures import Source, read_picture
from medst.use.studies import Study, as_pairs, each_of, time_order
from medst.weights.model_folder import PATTERNS

Images = Source | Study | Sequence[Source | Study] | ImageEmbeddings
Texts = str | Sequence[str] | TextEmbeddings


def load(path: Path | str, *, tokenizer: Path | str | None = None, device: str | None = None) -> "Model":
    """Load a model.

    Args:
        path: a model folder, a released Med-ST or MGCA checkpoint, or the hub id of a model that medst wrote.
        tokenizer: for a released checkpoint, the folder with Bio_ClinicalBERT's vocab.txt, or its hub id; if not given,
            the checkpoint's own folder.
        device: as torch names it; if not given, the accelerator where there is one, as `pretrain` does.

    Raises:
        MedstError: there is no such model, or it is damaged, carries pickled code or lacks its tokenizer; or no such device.
    """
    place = find(path, "model", PATTERNS, weights.is_model)
    if place.is_dir() and tokenizer is not None:
        raise MedstError(f"{path} is a model folder, which has its own tokenizer; leave tokenizer out.")
    parts = weights.read_folder(place) if place.is_dir() else weights.read_released(place, tokenizer)[0]
    chosen = device or default_device()
    try:
        parts[0].to(chosen)
    except (RuntimeError, AssertionError) as error:
        raise MedstError(f"device '{chosen}' can't be used here ({str(error).splitlines()[0]}).") from error
    return Model(*parts)


@dataclass(repr=False)
class Model(
    PyTorchModelHubMixin,
    library_name="medst",
    tags=["radiology", "chest-x-ray", "vision-language"],
    pipeline_tag="feature-extraction",
):
    """A model with the calls that people use.

    Pictures and texts are encoded in batches on the model's device; the result for one of them does not depend on the
    others, up to rounding. `save_pretrained(folder)`, `from_pretrained(folder or hub id)` and `push_to_hub(hub id)` are
    Hugging Face's.

    Attributes:
        model: both encoders and their heads, in evaluation mode.
        objective: the losses with their learnt weightings; None if the folder has none.
        tokenizer: the one used in training.
        recipe: the settings of the run that trained it, as far as this version knows them.
        fingerprint: sha256 of the weights' file, hexadecimal; a placeholder for a model that was never saved.
        margin: of `compare`, chosen on the validation patients of the run; None for a model that has none, for which
            `compare` takes a default.
    """

    model: MedST
    objective: Objective | None
    tokenizer: PreTrainedTokenizerBase
    recipe: Recipe
    fingerprint: str
    margin: weights.Margin | None = None

    @property
    def crop(self) -> int:
        """Side of the square that the image encoder sees, in pixels of the stored 256 x 256: `data.crop` of its training."""
        return self.recipe.data.crop

    @property
    def device(self) -> torch.device:
        """The device that holds the weights."""
        return next(self.model.parameters()).device

    @property
    def _parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def untrained(self, seed: int) -> "Model":
        """A model of the same shape with fresh weights, as a baseline."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model, objective = weights.build(self.recipe, self.tokenizer)
        model = model.to(self.device)
        return Model(model.eval(), objective.eval(), self.tokenizer, self.recipe, f"untrained-{seed}")

    def encode_image(self, frontal: Images, lateral: Source | Sequence[Source | None] | None = None) -> ImageEmbeddings:
        """Embed pairs.

        Args:
            frontal: one frontal view or several; or one `Study` or several, which have their own lateral views.
            lateral: the lateral view of each; None where there is none.

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
        pairs, settings, size = as_pairs(frontal, lateral), self.model.settings, batch_size(self)
        side, dim = settings.vision.image_size // settings.vision.patch_size, settings.embedding
        embedding, patches = torch.empty(len(pairs), dim), torch.zeros(len(pairs), 2 * side * side, dim)
        geometry: list[list[Any]] = []
        for start in range(0, len(pairs), size):
            rows, squares = slice(start, start + size), []
            for number, pair in enumerate(pairs[rows], start + 1):
                try:
                    read = [read_picture(pair[0]), None if pair[1] is None else read_picture(pair[1])]
                except MedstError as error:
                    raise type(error)(f"pair {number} of {len(pairs)}: {error}") from error
                geometry.append([None if picture is None else picture.geometry for picture in read])
                squares.append([None if picture is None else picture.square for picture in read])
            found = encode_pictures(self, *zip(*squares, strict=True))
            embedding[rows] = found.embedding.cpu()
            patches[rows, : found.tokens.shape[1]] = found.tokens.cpu()
        return ImageEmbeddings(
            embedding,
            patches.unflatten(1, (2, side, side)),
            tuple(frontal_view for frontal_view, _ in geometry),
            tuple(lateral_view for _, lateral_view in geometry),
            self.crop,
        )

    def encode_text(self, texts: Texts) -> TextEmbeddings:
        """Embed one text or several; those longer than the model's `text.pieces` word pieces are cut.

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
        found = [encode_texts(self, given[start : start + BATCH]) for start in range(0, len(given), BATCH)]
        most, dim = max((batch.mask.shape[1] for batch in found), default=0), self.model.settings.embedding
        words = [F.pad(batch.tokens, (0, 0, 0, most - batch.mask.shape[1])).cpu() for batch in found]
        masks = [F.pad(batch.mask, (0, most - batch.mask.shape[1])).cpu() for batch in found]
        return TextEmbeddings(
            given,
            torch.cat([torch.empty(0, dim), *(batch.embedding.cpu() for batch in found)]),
            torch.cat([torch.empty(0, most, dim), *words]),
            torch.cat([torch.empty(0, most).bool(), *masks]),
        )

    def similarity(self, image: Images, text: Texts) -> Float[Tensor, "pair text"]:
        """Cosine similarity of each pair and each text, from -1 to 1.

        Raises:
            MedstError: as `encode_image` and `encode_text`.

        >>> model.similarity([prior, current], ["edema", "pneumothorax", "no finding"]).shape
        torch.Size([2, 3])
        """
        return self.encode_image(image).embedding @ self.encode_text(text).embedding.T

    def ground(self, image: Images, text: str | TextEmbeddings) -> list[Grounding]:
        """Locate a phrase in each pair: a heat map for each of its views.

        The local loss (paper, section 3.3) lets words attend to patches. The value of a patch is its mean cosine with the
        phrase's words.

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
        similarity = (images.embedding @ phrase.embedding[0]).tolist()
        return [
            Grounding(
                phrase.texts[0],
                HeatMap(grid[0], images.frontal[i], images.crop),
                None if (lateral := images.lateral[i]) is None else HeatMap(grid[1], lateral, images.crop),
                similarity[i],
            )
            for i, grid in enumerate(grids)
        ]

    def compare(self, prior: Images, current: Images, finding: str) -> Progression:
        """How a finding, such as "pleural effusion", changed between two studies; see `medst.use.compare`.

        A model without a margin of its own takes a default, and `margin_is_own` is False.

        Raises:
            MedstError: as `encode_image`; or not one study each; or no finding.

        >>> found = model.compare(prior, current, "pleural effusion")
        >>> round(found.improving + found.stable + found.worsening, 6)
        1.0
        """
        before, after = self.encode_image(prior), self.encode_image(current)
        if len(before) != 1 or len(after) != 1:
            raise MedstError(f"compare takes one prior and one current study, not {len(before)} and {len(after)}.")
        axis = presence_axis(self.encode_text(presence_prompts(finding)).embedding)
        return progression(finding, axis, before.embedding[0], after.embedding[0], self.margin)

    def timeline(
        self, studies: Source | Study | Sequence[Source | Study], phrases: str | Sequence[str] | TextEmbeddings
    ) -> Timeline:
        """Similarity of phrases to a patient's studies over time.

        Studies are sorted by time if each has one; frontal views alone, such as paths, stay in the given order.

        Raises:
            MedstError: as `encode_image` and `encode_text`; or there are no studies, or some have a time and others don't.

        >>> line = model.timeline([current, prior], ["edema", "pneumonia"])
        >>> [study.time.month for study in line.studies], line.similarity.shape
        ([1, 3], torch.Size([2, 2]))
        """
        given = [item if isinstance(item, Study) else Study(item) for item in each_of(studies)]
        if not given:
            raise MedstError("a timeline needs at least one study.")
        ordered = [given[i] for i in time_order(given)]
        images, texts = self.encode_image(ordered), self.encode_text(phrases)
        return Timeline(tuple(ordered), texts.texts, images.embedding @ texts.embedding.T, images)

    def __repr__(self) -> str:
        vision, text = self.model.settings.vision, self.model.settings.text
        return (
            f"<Model: recipe {self.recipe.name}, {self._parameters / 1e6:.1f} M parameters, "
            f"ViT {vision.width} x {vision.depth} at {vision.image_size} px, BERT {text.width} x {text.layers} with "
            f"{len(self.tokenizer)} word pieces, on {self.device}, weights {self.fingerprint[:12] or 'untrained'}>"
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        weights.write_files(save_directory, self.model, self.objective, self.tokenizer, self.recipe, self.margin)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "Model":
        if Path(model_id).is_dir():
            return cls(*weights.read_folder(Path(model_id)))
        asked = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        given = {name: options[name] for name in asked if name in options}
        return cls(*weights.read_folder(Path(snapshot_download(model_id, allow_patterns=PATTERNS, **given))))

    def generate_model_card(self, *_: Any, **more: Any) -> ModelCard:
        """Make the card that `save_pretrained` writes: what the model is and how to use it."""
        return ModelCard.from_template(
            card_data=self._hub_mixin_info.model_card_data,
            template_path=str(Path(weights.__file__).with_name("model_card.md.j2")),
            recipe=self.recipe.name,
            settings=self.model.settings,
            parameters=self._parameters,
            version=__version__,
            repo_id=more.get("repo_id", "OWNER/NAME"),
        )
