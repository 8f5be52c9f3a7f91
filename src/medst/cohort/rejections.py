"""Account for every row of the raw tables: it is in the cohort, or in rejected.csv with a reason.

The reasons themselves are in the modules of the data sets; those for images in decode_jpeg.py, dicom.py and
unreadable.py.
"""

from collections import Counter
from dataclasses import dataclass, field

import polars as pl

from medst.errors import MedstError

REJECTED = {"kind": pl.String, "id": pl.String, "path": pl.String, "reason": pl.String, "rows": pl.String}
"""Columns of rejected.csv; `rows` has the numbers of the rows that are left out, separated by spaces."""
COUNTED = ("image", "report", "text", "row")
TOLERATED = ("image", "report", "row")
"""Kinds that mean a damaged copy; `text` is an intact report that the rules leave out."""
LEFT_OUT = ~pl.col("reason").str.starts_with("kept").fill_null(False)


@dataclass
class Rejections:
    """What was read, and what was rejected.

    Attributes:
        seen: number of items of each of `TOLERATED`, kept or not.
        rows: number of every row of the raw tables, as text.
        rejected: lines of rejected.csv.
    """

    seen: dict[str, int] = field(default_factory=dict, kw_only=True)
    rows: list[str] = field(default_factory=list, kw_only=True)
    rejected: list[pl.DataFrame] = field(default_factory=list, kw_only=True)

    def number_rows(self, table: pl.DataFrame, prefix: str = "") -> pl.DataFrame:
        """Add a column `rows` that numbers the rows of a raw table from 1, as text, and account for each of them.

        Nothing may have been filtered from `table`; `prefix` distinguishes the rows of several tables.
        """
        numbered = table.with_columns(rows=prefix + pl.int_range(1, pl.len() + 1).cast(pl.String))
        self.rows += numbered["rows"].to_list()
        self.seen["row"] = self.seen.get("row", 0) + table.height
        return numbered

    def check_all_rows(self, kept: pl.Series) -> int:
        """Return the number of rows that are left out, after checking that each row is either kept or left out.

        Args:
            kept: row numbers, several in one text separated by spaces; null for an entry that is not a row.

        Raises:
            MedstError: a row is neither or both; a bug of medst.
        """
        left_out = [number for text in self.lines().filter(LEFT_OUT)["rows"] for number in text.split()]
        stay = [number for text in kept.drop_nulls() for number in text.split()]
        if sorted(stay + left_out) != sorted(self.rows):
            odd = Counter(self.rows)
            odd.subtract(stay + left_out)
            which = ", ".join(number for number, count in odd.items() if count)[:200]
            raise MedstError(f"Rows are neither kept nor left out, or both ({which}); please report this bug of medst.")
        return len(left_out)

    def reject(
        self,
        kind: str,
        ids: pl.Series,
        paths: pl.Series | None,
        reason: str | pl.Series,
        rows: pl.Series | None = None,
    ) -> None:
        """Add lines to rejected.csv. A reason that begins with "kept" is a remark on something that stays.

        Args:
            kind: one of `COUNTED`; `unused` for something intact without a place in the cohort; or `study`.
            ids: of images, studies or patients.
            paths: of their files.
            reason: one for all, or one each.
            rows: numbers of the table's rows that are left out with each, see `number_rows`.
        """
        table = pl.DataFrame({"id": ids}).with_columns(
            kind=pl.lit(kind),
            path=pl.lit("") if paths is None else paths,
            reason=pl.lit(reason) if isinstance(reason, str) else reason,
            rows=pl.lit("") if rows is None else rows.fill_null(""),
        )
        self.rejected.append(table.select(pl.col(name).cast(dtype) for name, dtype in REJECTED.items()))

    def reject_where(self, table: pl.DataFrame, kind: str, *cases: tuple[pl.Expr, str | pl.Expr]) -> pl.DataFrame:
        """Reject images of a table, one case after the other; return the rest.

        Args:
            table: image_id, and possibly path and rows.
            kind: see `reject`.
            cases: what is wrong with an image (null: nothing), and the reason for rejected.csv.
        """
        for where, reason in cases:
            holds = table.select(holds=where.fill_null(False))["holds"]
            bad, table = table.filter(holds), table.filter(~holds)
            why = reason if isinstance(reason, str) else bad.select(reason=reason)["reason"]
            path, rows = (bad.get_column(name, default=None) for name in ("path", "rows"))
            self.reject(kind, bad["image_id"], path, why, rows)
        return table

    def lines(self) -> pl.DataFrame:
        """The content of rejected.csv."""
        return pl.concat([pl.DataFrame(schema=REJECTED), *self.rejected])
