"""Tokenizers, learnt and read."""

import json
from collections.abc import Callable
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


def test_learning_without_text_is_refused() -> None:
    with pytest.raises(MedstError, match="no report to learn a vocabulary from"):
        learn_tokenizer(["", ""], 60)


def test_a_saved_tokenizer_loads_unchanged(tmp_path: Path) -> None:
    LEARNT.save_pretrained(str(tmp_path / "t"))
    loaded = load_tokenizer(tmp_path / "t")
    assert loaded.get_vocab() == LEARNT.get_vocab()
    assert loaded("the effusion")["input_ids"] == LEARNT("the effusion")["input_ids"]


def vocabulary(folder: Path, pieces: list[str]) -> Path:
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return folder


PIECES = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "effus", "##ion", "grew"]


def test_a_vocabulary_file_is_read_as_bert_reads_it(tmp_path: Path) -> None:
    loaded = load_tokenizer(vocabulary(tmp_path / "bert", PIECES))
    assert loaded("The Effusion grew up")["input_ids"] == [3, 6, 7, 8, 9, 2, 4]
    assert (loaded.pad_token_id, loaded.sep_token_id) == (0, 4)
    assert continuing_pieces(loaded).tolist() == [piece.startswith("##") for piece in PIECES]


def test_a_bert_folder_gives_the_same_pieces_as_its_vocabulary_file(tmp_path: Path) -> None:
    folder = vocabulary(tmp_path / "bert", PIECES)
    bare = load_tokenizer(folder)
    (folder / "config.json").write_text('{"model_type": "bert", "vocab_size": 10}')
    assert load_tokenizer(folder)("The Effusion grew")["input_ids"] == bare("The Effusion grew")["input_ids"]


def test_a_vocabulary_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match=r"not a BERT tokenizer, it has no \[CLS\], \[SEP\]"):
        load_tokenizer(vocabulary(tmp_path / "bert", ["[PAD]", "[UNK]", "[MASK]", "the"]))


def test_a_missing_folder_and_one_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match="no such file or folder"):
        load_tokenizer(tmp_path / "none")
    with pytest.raises(MedstError, match=r"has no tokenizer; it needs tokenizer.json or vocab.txt"):
        load_tokenizer(tmp_path)


def test_lower_casing_is_the_default_and_can_be_switched_off(tmp_path: Path) -> None:
    folder = vocabulary(tmp_path / "bert", [*PIECES, "The"])
    assert load_tokenizer(folder)("The")["input_ids"] == [3, 6, 4]
    config = folder / "tokenizer_config.json"
    config.write_text('{"do_lower_case": false, "tokenizer_class": "Anything"}')
    assert load_tokenizer(folder)("The")["input_ids"] == [3, 10, 4]
    config.write_text('{"do_lower_case": "no"}')
    with pytest.raises(MedstError, match="do_lower_case is 'no'; it must be true or false"):
        load_tokenizer(folder)


def test_a_single_file_is_enough(tmp_path: Path) -> None:
    folder = vocabulary(tmp_path / "bert", PIECES)
    from_pieces = load_tokenizer(folder / "vocab.txt")
    from_pieces.save_pretrained(str(tmp_path / "saved"))
    assert load_tokenizer(tmp_path / "saved" / "tokenizer.json").get_vocab() == from_pieces.get_vocab()


def test_nothing_in_a_folder_is_executed(tmp_path: Path) -> None:
    LEARNT.save_pretrained(str(tmp_path))
    trap = f"open({str(tmp_path / 'executed')!r}, 'w')\n"
    (tmp_path / "evil.py").write_text(f"{trap}class Evil:\n    def __init__(self, *a, **k):\n        {trap}")
    names = {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoConfig": "evil.Evil"}
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(json.dumps({"auto_map": names, "tokenizer_class": "Evil", "model_type": "evil"}))
    assert load_tokenizer(tmp_path).get_vocab() == LEARNT.get_vocab()
    assert not (tmp_path / "executed").exists()


def edited(change: Callable[[dict], None]) -> bytes:
    content = json.loads(LEARNT.backend_tokenizer.to_str())
    change(content)
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("vocab.txt", b"[PAD]\n\xff\n", "not a BERT tokenizer, 'utf-8' codec can't decode"),
        ("vocab.txt", "\n".join([*PIECES, "the"]).encode(), "it holds 'the' twice"),
        ("tokenizer.json", b"{", "not a BERT tokenizer, EOF while parsing"),
        ("tokenizer.json", b"[]", "not a BERT tokenizer, "),
        ("tokenizer.json", edited(lambda c: c["model"]["vocab"].update(zebra=2000)), "are not 0 to"),
        ("tokenizer.json", edited(lambda c: c["model"].update(unk_token="?")), "its unknown piece . is not in it"),
        ("tokenizer.json", edited(lambda c: c["model"].update(continuing_subword_prefix="_")), "start with ##"),
        ("tokenizer.json", edited(lambda c: c.update(post_processor=None)), "does not put a text between"),
    ],
)
def test_a_damaged_or_another_file_is_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MedstError, match=said):
        load_tokenizer(tmp_path)


def test_pieces_may_be_line_separators(tmp_path: Path) -> None:
    assert load_tokenizer(vocabulary(tmp_path / "bert", [*PIECES, "\u2028", "last"]))("last")["input_ids"] == [3, 11, 4]


def test_a_hub_id_is_read_from_the_offline_cache(tmp_path: Path, hub: Callable[[str, Path], None]) -> None:
    hub("someone/a-bert", vocabulary(tmp_path / "bert", PIECES))
    assert load_tokenizer("someone/a-bert")("the")["input_ids"] == [3, 6, 4]
