from datetime import datetime

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from medst.cohort.mimic_clock import clock_number, order_clocks, study_time


def times(*values: tuple[str | None, str | None]) -> list[datetime | None]:
    table = pl.DataFrame(values, schema={"date": pl.String, "time": pl.String}, orient="row")
    return table.select(study_time(pl.col("date"), pl.col("time"))).to_series().to_list()


def test_times_lose_no_zero_and_no_fraction() -> None:
    day = datetime(2150, 3, 1)
    assert times(
        ("21500301", "213014.531000"),
        ("21500301", "1230.5"),
        ("21500301", "0"),
        ("21500301", "93015"),
        ("21500301", "0.0"),
    ) == [
        day.replace(hour=21, minute=30, second=14, microsecond=531000),
        day.replace(minute=12, second=30, microsecond=500000),
        day,
        day.replace(hour=9, minute=30, second=15),
        day,
    ]


def test_an_invalid_time_is_null() -> None:
    assert (
        times(
            ("21500230", "0"),
            ("2150", "0"),
            (None, "0"),
            ("21500301", None),
            ("21500301", "-1"),
            ("21500301", "2130145"),
            ("x", "y"),
            ("21500301", "1.x"),
        )
        == [None] * 8
    )


CLOCKS = st.integers(0, 999_999_999_999) | st.integers(50_500_000_000, 50_799_999_999)


@given(st.lists(CLOCKS, min_size=2, max_size=12))
def test_clocks_that_do_not_exist_keep_their_images_in_the_order_of_the_numbers(numbers: list[int]) -> None:
    """05:05:71 and 25:00:00 are sorted by number, as released, and never change the day."""
    written = [
        (f"2150030{1 + i % 2}", f"{number // 1_000_000}.{number % 1_000_000:06d}") for i, number in enumerate(numbers)
    ]
    table = pl.DataFrame(written, schema={"date": pl.String, "text": pl.String}, orient="row").with_columns(
        patient_id=pl.lit("a"),
        time=study_time(pl.col("date"), pl.col("text")),
        clock=clock_number(pl.col("text")),
    )
    assert table["clock"].to_list() == numbers
    table = table.with_columns(time=order_clocks(table))
    assert table["time"].dt.to_string("%Y%m%d").to_list() == table["date"].to_list()
    ordered = table.sort("date", "clock")
    assert ordered["time"].is_sorted()
    exists = table.filter((pl.col("clock") // 10_000_000_000 < 24) & (pl.col("clock") // 100_000_000 % 100 < 60))
    exists = exists.filter(pl.col("clock") // 1_000_000 % 100 < 60)
    assert exists["time"].dt.to_string("%H%M%S%.6f").to_list() == [
        f"{number // 1_000_000:06d}.{number % 1_000_000:06d}" for number in exists["clock"]
    ]


@given(st.lists(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)), min_size=1))
def test_times_come_back_as_they_were(moments: list[datetime]) -> None:
    written = [(f"{m:%Y%m%d}", f"{int(f'{m:%H%M%S}')}.{m.microsecond:06d}") for m in moments]
    assert times(*written) == moments
