"""Reports to word pieces: a vocabulary learnt from a cohort's own reports, or any Hugging Face tokenizer folder."""

from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Bool
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from medst.errors import MedstError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def learn_tokenizer(reports: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A WordPiece vocabulary of at most `vocabulary` pieces, learnt from lower-cased reports.

    Raises:
        MedstError: there is no text to learn from.
    """
    texts = [report for report in reports if report]
    if not texts:
        raise MedstError("There is no report to learn a vocabulary from: the cohort's training split is empty.")
    learner = _empty_tokenizer({})
    letters = sorted({letter for text in texts for letter in learner.normalizer.normalize_str(text)} - {" "})
    # The trainer numbers continuing letters in the order of a hash map, which differs from run to run and decides ties
    # between merges. Naming them beforehand fixes the order; the vocabulary is then taken over without that help.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL, *(f"##{letter}" for letter in letters)],
        show_progress=False,
        continuing_subword_prefix="##",
    )
    learner.train_from_iterator(texts, trainer)
    return _as_bert(learner.get_vocab(with_added_tokens=True))


def _as_bert(vocabulary: dict[str, int]) -> PreTrainedTokenizerFast:
    tokenizer = _empty_tokenizer(vocabulary)
    cls, sep = vocabulary["[CLS]"], vocabulary["[SEP]"]
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _empty_tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer saved in `folder`.

    Raises:
        MedstError: there is none, or it can't be read.
    """
    if not folder.is_dir():
        raise MedstError(f"{folder}: no such folder; a tokenizer is a folder with tokenizer.json or vocab.txt.")
    if (folder / "vocab.txt").is_file() and not any((folder / n).is_file() for n in ("config.json", "tokenizer.json")):
        return _from_vocabulary(folder / "vocab.txt")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise MedstError(f"{folder}: not a tokenizer folder ({str(error).splitlines()[0]}).") from error
    return tokenizer


def _from_vocabulary(file: Path) -> PreTrainedTokenizerFast:
    pieces = file.read_text(encoding="utf-8", errors="replace").splitlines()
    lacking = [piece for piece in SPECIAL if piece not in pieces]
    if lacking:
        raise MedstError(f"{file}: not a BERT vocabulary, it has no {', '.join(lacking)}.")
    return _as_bert({piece: number for number, piece in enumerate(pieces)})


def continuing_pieces(tokenizer: PreTrainedTokenizerBase) -> Bool[Tensor, " vocabulary"]:
    """For each id, whether its piece continues a word (starts with ##)."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return torch.tensor([piece.startswith("##") for piece in pieces])
