"""Rejections: every row of a raw table ends up in the cohort, or in rejected.csv with a reason."""

from collections import Counter
from dataclasses import dataclass, field

import polars as pl

from medst.errors import MedstError

REJECTED = {"kind": pl.String, "id": pl.String, "path": pl.String, "reason": pl.String, "rows": pl.String}
"""Columns of rejected.csv; `rows` has the numbers of the table's rows that are left out with this line, blanks between."""
COUNTED = ("image", "report", "text", "row")
TOLERATED = ("image", "report", "row")
"""Kinds of rejections that mean a damaged copy; `text` is what the rules leave out of a whole one."""
LEFT_OUT = ~pl.col("reason").str.starts_with("kept").fill_null(False)


@dataclass
class Rejections:
    """What was read, and what of it was left out.

    Attributes:
        seen: how many there were of each of `TOLERATED`, kept or not.
        rows: number of every row of the raw tables, as text.
        rejected: lines of rejected.csv.
    """

    seen: dict[str, int] = field(default_factory=dict, kw_only=True)
    rows: list[str] = field(default_factory=list, kw_only=True)
    rejected: list[pl.DataFrame] = field(default_factory=list, kw_only=True)

    def number_rows(self, table: pl.DataFrame, prefix: str = "") -> pl.DataFrame:
        """Number the rows of a raw table from 1, in a column `rows` of texts, and account for each of them.

        Args:
            table: as read, nothing filtered.
            prefix: tells the rows of several tables apart.
        """
        numbered = table.with_columns(rows=prefix + pl.int_range(1, pl.len() + 1).cast(pl.String))
        self.rows += numbered["rows"].to_list()
        return numbered

    def check_all_rows(self, kept: pl.Series) -> int:
        """How many rows are left out, once each is either in `kept` or in what was rejected.

        Args:
            kept: texts of row numbers, blanks between; null where an entry is not a row.

        Raises:
            MedstError: a row is neither, or both; a bug of medst.
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
        """Note lines in rejected.csv; a reason that begins with 'kept' says so of what stays.

        Args:
            kind: of `COUNTED`; or `unused`, of what is whole but has no place in the cohort; or `study`.
            ids: of images, studies or patients.
            paths: of their files.
            reason: why.
            rows: numbers of the table's rows that are left out with each, as `number_rows` gives them.
        """
        table = pl.DataFrame({"id": ids}).with_columns(
            kind=pl.lit(kind),
            path=pl.lit("") if paths is None else paths,
            reason=pl.lit(reason) if isinstance(reason, str) else reason,
            rows=pl.lit("") if rows is None else rows.fill_null(""),
        )
        self.rejected.append(table.select(pl.col(name).cast(dtype) for name, dtype in REJECTED.items()))

    def reject_where(self, table: pl.DataFrame, where: pl.Expr, kind: str, reason: str | pl.Expr) -> pl.DataFrame:
        """Note the images of a table for which `where` holds, and return all others: those for which it is null, too.

        Args:
            table: image_id, path and rows.
            where: what is wrong with an image.
            kind: see `reject`.
            reason: a sentence, or one for each image.
        """
        holds = table.select(holds=where.fill_null(False))["holds"]
        bad = table.filter(holds)
        why = reason if isinstance(reason, str) else bad.select(reason=reason)["reason"]
        self.reject(kind, bad["image_id"], bad["path"], why, bad["rows"])
        return table.filter(~holds)

    def lines(self) -> pl.DataFrame:
        """What rejected.csv says: kind, id, path, reason, rows."""
        return pl.concat([pl.DataFrame(schema=REJECTED), *self.rejected])
