import codecs
import csv
import gzip
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medst.cohort import raw_tables
from medst.cohort.raw_tables import digest, read_csv
from medst.errors import MedstError

WHOLE = gzip.compress(b"x,y\n" + b"1,2\n" * 1000, mtime=0)


def test_gzipped_and_plain_and_marked_files_are_the_same_table(tmp_path: Path) -> None:
    content = b"x,y\n007,\n,2.50\n"
    expected = pl.DataFrame({"x": ["007", None], "y": [None, "2.50"]})
    for number, (name, written) in enumerate(
        [("t.csv.gz", gzip.compress(content)), ("t.csv", content), ("t.csv", b"\xef\xbb\xbf" + content)]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).write_bytes(written)
        for asked in ("t.csv", "t.csv.gz"):
            assert read_csv(folder / asked, ("x", "y")).equals(expected)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "can't be read as a CSV file"),
        (WHOLE[:30], "t.csv.gz is a damaged gzip file"),
        (WHOLE[:-6], "download or copy it again."),
        (b"PK\x03\x04rest", "it is a spreadsheet such as .xlsx, or another zip file"),
        (b"\xd0\xcf\x11\xe0rest", "it is a spreadsheet of the old .xls kind"),
        (b"PAR1rest", "it is a Parquet file; give it a name that ends in .parquet"),
        (b"x,y\n1,2,3\n", "can't be read as a CSV file"),
        (b"x,y\n1,2\n1,\xe9\n", "not UTF-8 text: byte 0xe9 in line 3"),
        (gzip.compress(b"x,y\n1,\xe9\n"), "not UTF-8 text: byte 0xe9 in line 2"),
        (codecs.BOM_UTF16_LE + "x,y\n".encode("utf-16-le") + b"1", "not UTF-8 text"),
        (b"x,y,x\n1,2,3\n", "it has the column x more than once"),
        (b"x,y,,\n1,2,,3\n,,4,\n", "two of its columns have no name"),
        (b"x,y\n1,2\n3\n", "row 2 has 1 fields, the header has 2"),
        (b'x,y\n1,"2\n3,4\n', "is a quotation mark not closed"),
        (b'x,y\n1,"2"3\n', "line 2: ',' expected after '\"'"),
        (gzip.compress(b"x,y\n" + b"0" * 70_000_000), "it inflates to more than 67 MB"),
        (b"x,z\n1,2\n", "t.csv.gz has no column y; it has x, z."),
        (b"\x01\x02\xc3\xa9\n", "t.csv.gz has no column x, y; it has "),
    ],
)
def test_a_file_that_is_not_such_a_table_is_refused_with_a_sentence(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    (tmp_path / "t.csv.gz").write_bytes(content)
    with pytest.raises(MedstError) as caught:
        read_csv(tmp_path / "t.csv.gz", ("x", "y"))
    assert sentence in str(caught.value)
    assert "t.csv.gz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_long_field_is_read_and_the_csv_module_keeps_its_own_limit(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,y\n1," + "a" * 200_000)
    before = csv.field_size_limit()
    assert read_csv(tmp_path / "t.csv", ("y",))["y"].str.len_bytes().to_list() == [200_000]
    assert csv.field_size_limit() == before


def test_columns_that_spreadsheets_add_do_no_harm(tmp_path: Path) -> None:
    """Columns without name and content, blank lines, quotation marks within a field, a column of row numbers."""
    (tmp_path / "t.csv").write_bytes(b'\r\n,x,y,,\r\n0,007,5" tube,,\r\n\r\n1,"two\r\nlines","say ""a""",,\r\n')
    table = read_csv(tmp_path / "t.csv", ("x", "y"))
    assert table.columns == ["", "x", "y"]
    assert table.rows() == [("0", "007", '5" tube'), (None, None, None), ("1", "two\r\nlines", 'say "a"')]


def test_what_a_gzipped_table_inflates_to_is_limited_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_tables, "SMALL", 1000)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"x\n" + b"0\n" * 100_000))
    with pytest.raises(MedstError, match="it inflates to more than"):
        read_csv(path, ("x",))
    path.write_bytes(gzip.compress(b"x\n0\n"))
    assert read_csv(path, ("x",)).height == 1


CELLS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=6)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), max_size=5)))
def test_whatever_a_csv_file_quotes_is_read_as_it_was_written(rows: list[list[str]]) -> None:
    names = [f"c{i}" for i in range(len(rows[0]) if rows else 1)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([names, *rows])
        assert read_csv(path, ()).rows() == [tuple(cell or None for cell in row) for row in rows]


def test_a_missing_file_and_a_missing_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(MedstError, match=r"t\.csv\.gz: no such file"):
        read_csv(tmp_path / "t.csv.gz", ())
    with pytest.raises(MedstError, match=r"nowhere: no such folder; give the one that holds t\.csv\.gz"):
        read_csv(tmp_path / "nowhere" / "t.csv.gz", ())


def test_a_digest_is_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(WHOLE)
    first = digest([path])
    assert list(first) == ["t.csv"]
    assert digest([path]) == first
    path.write_bytes(WHOLE + b"\0")
    assert digest([path]) != first
