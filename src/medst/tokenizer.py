"""Reports to word pieces: a vocabulary learnt from a cohort's reports, or that of a BERT.

A tokenizer is built from `tokenizer.json` or `vocab.txt` alone; nothing in a folder is executed, whatever its configuration
asks for.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import torch
from jaxtyping import Bool
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from medst.errors import MedstError
from medst.files import read_json, read_regular
from medst.hub import find

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
FILES = ("tokenizer.json", "vocab.txt")
"""Files that a tokenizer can be built from; the first one found in a folder is read."""
CONFIG = "tokenizer_config.json"
LARGEST = 64 * 2**20
"""Largest file of a tokenizer in bytes; those of a BERT have less than 1 MB."""


def learn_tokenizer(reports: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Learn a WordPiece vocabulary of at most `vocabulary` pieces from lower-cased reports.

    Raises:
        MedstError: all reports are empty.
    """
    texts = [report for report in reports if report]
    if not texts:
        raise MedstError("There is no report to learn a vocabulary from: the cohort's training split is empty.")
    learner = _wordpiece({})
    letters = sorted({letter for text in texts for letter in learner.normalizer.normalize_str(text)} - {" "})
    # The trainer numbers continuing letters in the order of a hash map, which differs between runs and decides ties between
    # merges. Naming them as special tokens fixes the order; the tokenizer is then built anew from the vocabulary alone.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        special_tokens=[*SPECIAL, *(f"##{letter}" for letter in letters)],
        show_progress=False,
        continuing_subword_prefix="##",
    )
    learner.train_from_iterator(texts, trainer)
    return _as_transformers(_wordpiece(learner.get_vocab(with_added_tokens=True)))


def _wordpiece(vocabulary: dict[str, int], lowercase: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    if vocabulary:
        cls, sep = vocabulary["[CLS]"], vocabulary["[SEP]"]
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    return tokenizer


def _as_transformers(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    named = {f"{piece[1:-1].lower()}_token": piece for piece in SPECIAL}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def load_tokenizer(name: Path | str, setting: str = "tokenizer") -> PreTrainedTokenizerFast:
    """Load the tokenizer of a BERT.

    A `vocab.txt` is read as BERT's own code reads it: lower-cased, as the released code does with Bio_ClinicalBERT's
    (method, section 1), unless the folder's `tokenizer_config.json` says `"do_lower_case": false`.

    Args:
        name: a folder with tokenizer.json or vocab.txt, one of these files, or a hub id OWNER/NAME.
        setting: the setting that gave the name; begins the error message.

    Raises:
        MedstError: there is no such tokenizer, or it is damaged or not a BERT's.
    """
    place = find(name, setting, [*FILES, CONFIG])
    file = next((place / each for each in FILES if (place / each).is_file()), None) if place.is_dir() else place
    if file is None:
        raise MedstError(f"{setting} {name}: this folder has no tokenizer; it needs {' or '.join(FILES)}.")
    data = read_regular(file, LARGEST)
    return _from_json(data, file) if file.suffix == ".json" else _from_vocabulary(data, file)


def _from_json(data: bytes, file: Path) -> PreTrainedTokenizerFast:
    try:
        tokenizer = Tokenizer.from_str(data.decode())
        tokenizer.no_truncation()
        tokenizer.no_padding()
        empty = tokenizer.encode("").ids
    except Exception as error:  # the library raises nothing narrower
        raise _not_bert(file, " ".join(str(error).split())[:160]) from None
    if not isinstance(tokenizer.model, models.WordPiece) or tokenizer.model.continuing_subword_prefix != "##":
        raise _not_bert(file, "its model is not WordPiece with continuing pieces that start with ##")
    pieces = tokenizer.get_vocab(with_added_tokens=True)
    _check_pieces(pieces, file)
    if tokenizer.model.unk_token not in pieces:
        raise _not_bert(file, f"its unknown piece {tokenizer.model.unk_token} is not in it")
    if empty != [pieces["[CLS]"], pieces["[SEP]"]]:
        raise _not_bert(file, "it does not put a text between [CLS] and [SEP]")
    return _as_transformers(tokenizer)


def _from_vocabulary(data: bytes, file: Path) -> PreTrainedTokenizerFast:
    try:
        # Not splitlines: a piece may be a rare line separator.
        lines = [line.removesuffix("\r") for line in data.decode().removesuffix("\n").split("\n")]
    except UnicodeDecodeError as error:
        raise _not_bert(file, str(error)) from None
    twice = [piece for piece, count in Counter(lines).items() if count > 1]
    if twice:
        raise _not_bert(file, f"it holds {', '.join(map(repr, twice[:3]))} twice")
    pieces = {piece: number for number, piece in enumerate(lines)}
    _check_pieces(pieces, file)
    config, lowercase = file.with_name(CONFIG), True
    if config.is_file():
        lowercase = read_json(config, "get it again from where the tokenizer was published").get("do_lower_case", True)
        if not isinstance(lowercase, bool):
            raise MedstError(f"{config}: do_lower_case is {lowercase!r}; it must be true or false.")
    return _as_transformers(_wordpiece(pieces, lowercase))


def _check_pieces(pieces: dict[str, int], file: Path) -> None:
    missing = [piece for piece in SPECIAL if piece not in pieces]
    if missing:
        raise _not_bert(file, f"it has no {', '.join(missing)}")
    if sorted(pieces.values()) != list(range(len(pieces))):
        raise _not_bert(file, f"the ids of its {len(pieces)} pieces are not 0 to {len(pieces) - 1}")


def _not_bert(file: Path, reason: str) -> MedstError:
    return MedstError(f"{file}: not a BERT tokenizer, {reason}; give a folder with a BERT's {' or '.join(FILES)}.")


def continuing_pieces(tokenizer: PreTrainedTokenizerBase) -> Bool[Tensor, " vocabulary"]:
    """For each id, whether its piece continues a word (starts with ##)."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return torch.tensor([piece.startswith("##") for piece in pieces])
