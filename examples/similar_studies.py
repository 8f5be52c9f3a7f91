"""The studies of a cohort with the pictures most similar to yours, or the reports most similar to a sentence.

medst embed MODEL COHORT EMBEDDINGS
python examples/similar_studies.py MODEL EMBEDDINGS --picture my.jpg
python examples/similar_studies.py MODEL EMBEDDINGS --sentence "The effusion has resolved."
"""

import argparse
from pathlib import Path

import polars as pl

import medst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("embeddings", type=Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--picture", type=Path)
    what.add_argument("--sentence")
    given = parser.parse_args()

    model = medst.load(given.model)
    table = pl.read_parquet(given.embeddings / "*.parquet")
    if given.picture is not None:
        question, column = model.encode_image(given.picture).embedding[0], "image"
    else:
        question, column = model.encode_text(given.sentence).embedding[0], "report"
    rows = table[column].list.to_array(len(question)).to_numpy()
    found = table.with_columns(similarity=pl.Series(rows @ question.numpy())).top_k(5, by="similarity")
    with pl.Config(tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        print(found.select("patient_id", "study_id", "time", "similarity"))


if __name__ == "__main__":
    main()
