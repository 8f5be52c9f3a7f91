"""Cut each patient's pairs into sequences."""

import polars as pl


def cut_sequences(pairs: pl.DataFrame, length: int) -> list[list[int]]:
    """Cut each patient's pairs, in time order, into consecutive sequences of `length`; the last one may be shorter.

    Patients are in the order of their ids. If a patient is in two splits, these are not joined.

    Args:
        pairs: columns patient_id, split, time, study_id, frontal.
        length: largest number of pairs in a sequence.

    Returns:
        Row numbers of `pairs`, one list per sequence.

    >>> from datetime import datetime
    >>> days = [datetime(2100, 1, day) for day in (3, 1, 2, 1)]
    >>> table = pl.DataFrame({"patient_id": ["a", "a", "a", "b"], "split": "train", "time": days,
    ...                       "study_id": ["s3", "s1", "s2", "s4"], "frontal": [0, 1, 2, 3]})
    >>> cut_sequences(table, 2)
    [[1, 2], [0], [3]]
    """
    keys = ["patient_id", "split"]
    cut = (
        pairs.lazy()
        .with_row_index("row")
        .sort([*keys, "time", "study_id", "frontal"], maintain_order=True)
        .with_columns((pl.int_range(pl.len()).over(keys) // length).alias("chunk"))
        .group_by([*keys, "chunk"], maintain_order=True)
        .agg("row")
        .collect()
    )
    return cut["row"].to_list()
