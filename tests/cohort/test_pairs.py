import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from medst.cohort.pairs import draw_splits


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=30))
def test_a_patient_has_one_split_whoever_else_is_there(patients: list[str]) -> None:
    together = dict(zip(patients, draw_splits(pl.Series(patients)), strict=True))
    assert together == {name: draw_splits(pl.Series([name]))[0] for name in patients}
    assert draw_splits(pl.Series(patients)).to_list() == [together[name] for name in patients]


def test_shares_are_as_documented() -> None:
    counts = dict(draw_splits(pl.Series([f"p{n}" for n in range(5000)])).value_counts().iter_rows())
    assert abs(counts["test"] - 500) < 80
    assert abs(counts["valid"] - 500) < 80
