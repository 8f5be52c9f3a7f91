"""StudyDate and StudyTime of MIMIC-CXR as times, in the order that the released code gives them.

Some clocks do not exist, such as 05:05:71. They count by their number and never change the date.
"""

from datetime import timedelta

import polars as pl

MICROSECOND = timedelta(microseconds=1)
CLOCK = r"^(\d{1,6})(?:\.(\d*))?$"
PARTS = ((10_000_000_000, 23, 3600), (100_000_000, 59, 60), (1_000_000, 59, 1))
"""Of hour, minute and second: its unit in `clock_number`, its largest value, its seconds."""


def study_time(date: pl.Expr, time: pl.Expr) -> pl.Expr:
    """StudyDate (yyyymmdd) and StudyTime (hhmmss.fff, leading zeros possibly lost) as a datetime; null if invalid.

    A clock that does not exist becomes the last microsecond of its minute (or hour, or day); `order_clocks` then puts it
    into its exact place.
    """
    number = clock_number(time)
    beyond, micros = pl.lit(False), pl.lit(0, dtype=pl.Int64)
    for unit, most, seconds in PARTS:
        value = number // unit % 100
        micros += pl.when(beyond).then(most).otherwise(pl.min_horizontal(value, pl.lit(most))) * (seconds * 1_000_000)
        beyond = beyond | (value > most)
    micros += pl.when(beyond).then(999_999).otherwise(number % 1_000_000)
    day = date.str.split(".").list.first().str.to_date("%Y%m%d", strict=False).cast(pl.Datetime("us"))
    return day + pl.duration(microseconds=micros, time_unit="us")


def clock_number(time: pl.Expr) -> pl.Expr:
    """StudyTime as an integer: hhmmss and six digits of its fraction; null if it is not a number of up to 6 digits."""
    parts = time.str.extract_groups(CLOCK).struct
    fraction = parts.field("2").fill_null("").str.slice(0, 6).str.pad_end(6, "0")
    return (parts.field("1") + fraction).cast(pl.Int64, strict=False)


def order_clocks(table: pl.DataFrame) -> pl.Series:
    """Move times of clocks that do not exist by microseconds, so that a patient's day is in the order of the numbers.

    05:05:71 comes before 05:05:75, as in the released code. Other times do not change.

    Args:
        table: patient_id, time (see `study_time`; the moved ones are returned) and clock (see `clock_number`).
    """
    odd = pl.any_horizontal(pl.col("clock") // unit % 100 > most for unit, most, _ in PARTS)
    rows = table.select("patient_id", "time", "clock", odd=odd, day=pl.col("time").dt.date()).with_row_index("place")
    rows = rows.filter(pl.col("odd").any().over("patient_id", "day") & pl.col("time").is_not_null())
    if rows.is_empty():
        return table["time"]
    times = table["time"].to_list()
    later = None
    for place, patient, day, clock, time, odd_clock in (
        rows.sort("patient_id", "day", "clock", descending=True)
        .select("place", "patient_id", "day", "clock", "time", "odd")
        .iter_rows()
    ):
        if later is not None and later[:2] == (patient, day) and odd_clock:
            time = later[3] if clock == later[2] else min(time, later[3] - MICROSECOND)
        times[place], later = time, (patient, day, clock, time)
    return pl.Series("time", times, dtype=pl.Datetime("us"))
