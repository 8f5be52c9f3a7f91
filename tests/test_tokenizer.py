"""Vocabularies learnt and read."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medst.errors import MedstError
from medst.tokenizer import SPECIAL, continuing_pieces, learn_tokenizer, load_tokenizer

REPORTS = ["no acute cardiopulmonary process", "the effusion has grown", "small effusion unchanged", ""]


def test_the_same_reports_give_the_same_vocabulary_and_special_pieces_come_first() -> None:
    one, two = learn_tokenizer(REPORTS, 60), learn_tokenizer(iter(REPORTS), 60)
    assert one.get_vocab() == two.get_vocab()
    assert one.convert_ids_to_tokens(list(range(len(SPECIAL)))) == list(SPECIAL)
    assert len(one) <= 60


def test_reports_are_framed_and_lower_cased() -> None:
    tokenizer = learn_tokenizer(REPORTS, 60)
    ids = tokenizer("The EFFUSION")["input_ids"]
    assert ids == tokenizer("the effusion")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the effusion"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.sampled_from(["effusion", "grown", "small", "acute", "process", "the", "no"]), min_size=1, max_size=8)
)
def test_known_letters_are_never_unknown_and_pieces_join_to_words(words: list[str]) -> None:
    tokenizer = LEARNT
    ids = tokenizer(" ".join(words))["input_ids"]
    assert tokenizer.unk_token_id not in ids
    continues = continuing_pieces(tokenizer)
    assert sum(not continues[i] for i in ids) == len(words) + 2


LEARNT = learn_tokenizer(REPORTS, 60)


def test_no_text_to_learn_from_is_a_sentence() -> None:
    with pytest.raises(MedstError, match="no report to learn a vocabulary from"):
        learn_tokenizer(["", ""], 60)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    LEARNT.save_pretrained(str(tmp_path / "t"))
    loaded = load_tokenizer(tmp_path / "t")
    assert loaded.get_vocab() == LEARNT.get_vocab()
    assert loaded("the effusion")["input_ids"] == LEARNT("the effusion")["input_ids"]


def vocabulary(folder: Path, pieces: list[str]) -> Path:
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return folder


PIECES = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "effus", "##ion", "grew"]


def test_a_bare_vocabulary_is_read_as_bert_reads_it(tmp_path: Path) -> None:
    loaded = load_tokenizer(vocabulary(tmp_path / "bert", PIECES))
    assert loaded("The Effusion grew up")["input_ids"] == [3, 6, 7, 8, 9, 2, 4]
    assert (loaded.pad_token_id, loaded.sep_token_id) == (0, 4)
    assert continuing_pieces(loaded).tolist() == [piece.startswith("##") for piece in PIECES]


def test_a_bert_folder_gives_the_same_pieces_as_its_bare_vocabulary(tmp_path: Path) -> None:
    folder = vocabulary(tmp_path / "bert", PIECES)
    bare = load_tokenizer(folder)
    (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 10}')
    assert load_tokenizer(folder)("The Effusion grew")["input_ids"] == bare("The Effusion grew")["input_ids"]


def test_a_vocabulary_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match=r"not a BERT vocabulary, it has no \[CLS\], \[SEP\]"):
        load_tokenizer(vocabulary(tmp_path / "bert", ["[PAD]", "[UNK]", "[MASK]", "the"]))


def test_no_folder_and_no_tokenizer_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match="no such folder"):
        load_tokenizer(tmp_path / "none")
    with pytest.raises(MedstError, match="not a tokenizer folder"):
        load_tokenizer(tmp_path)
