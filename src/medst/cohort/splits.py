"""A split for data sets that come without one."""

import polars as pl

from medst.files import sha256

VALID, TEST = 0.1, 0.1


def draw_splits(patients: pl.Series) -> pl.Series:
    """A split for each patient: 80 % train, 10 % valid, 10 % test, by a hash of the id.

    So it depends on no order and no other patient: a data set that grows keeps its splits.

    Args:
        patients: ids, one a row.

    Returns:
        train, valid or test, a row for each of `patients`.

    >>> draw_splits(pl.Series(["c", "a", "c"])).to_list()
    ['valid', 'train', 'valid']
    """
    unique = patients.unique().sort()
    shares = [int(sha256(str(name).encode())[:16], 16) / 2**64 for name in unique]
    names = ["test" if share < TEST else "valid" if share < TEST + VALID else "train" for share in shares]
    return patients.replace_strict(unique, pl.Series(names, dtype=pl.String), return_dtype=pl.String)
