"""COVIDx (the lists of COVID-Net): a benchmark cohort of three classes with the released split.

The three-class lists are supported: COVIDx 3 to 6, 7A, 8A, 9A and CXR-3A. A line has patient, file name, class and possibly
source. The two-class B lists are refused: their "negative" does not say whether there is pneumonia.
"""

import re
from pathlib import Path
from typing import Any

import polars as pl
from sklearn.model_selection import GroupShuffleSplit, train_test_split

from medst.cohort.classification import write_classification
from medst.cohort.options import Options
from medst.cohort.raw_tables import digest
from medst.cohort.writer import Writer
from medst.errors import MedstError

CLASSES = ("normal", "pneumonia", "COVID-19")
CLASS_OF = {"normal": 0, "pneumonia": 1, "covid-19": 2, "positive": 2}
"""By the name in lower case; some three-class lists call COVID-19 positive."""
LINE = r"^(?<patient_id>\S+)\s+(?<name>\S.*?)\s+(?<class>\S+)(?:\s+(?<source>\S+))?$"
VERSION = re.compile(r"COVIDx_?(\w[\w-]*)\.txt$")


def find_list(raw: Path, part: str) -> Path:
    """Find the list of a part: train.txt, or the only train*.txt.

    Raises:
        MedstError: there is none, or there are several.
    """
    if not raw.is_dir():
        raise MedstError(f"{raw}: no such folder; give the one that holds {part}.txt.")
    if (raw / f"{part}.txt").is_file():
        return raw / f"{part}.txt"
    found = sorted(raw.glob(f"{part}*.txt"))
    if len(found) != 1:
        named = ", ".join(path.name for path in found) or "none"
        raise MedstError(f"{raw} must hold one list, {part}.txt or for instance {part}_COVIDx9A.txt; found: {named}.")
    return found[0]


def describe(raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`."""
    lists = [find_list(raw, part) for part in ("train", "test")]
    version = VERSION.search(lists[0].name)
    return {"dataset_version": version.group(1) if version else "unknown", "source": digest(lists)}


def read_list(writer: Writer, path: Path) -> pl.DataFrame:
    """Read the images of a list, in its order.

    Returns:
        patient_id, image_id (the file's name), label, rows (`train:17` is the 17th line of train.txt).

    Raises:
        MedstError: it is not text, not a list of COVIDx, or a list of two classes.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise MedstError(f"{path} is not UTF-8 text ({error}); download it again.") from None
    text = pl.DataFrame({"line": [line.strip() for line in lines]}, schema={"line": pl.String})
    text = writer.number_rows(text.filter(pl.col("line") != ""), f"{path.stem.replace(' ', '_')}:")
    table = text.with_columns(pl.col("line").str.extract_groups(LINE).alias("parts")).unnest("parts")
    # Without a source the greedy end of the line is the class, and what looked like the class belongs to the name.
    bare = pl.col("source").is_not_null() & pl.col("source").str.to_lowercase().is_in([*CLASS_OF, "negative"])
    table = table.with_columns(
        image_id=pl.when(bare).then(pl.col("name") + " " + pl.col("class")).otherwise("name"),
        kind=pl.when(bare).then("source").otherwise("class").str.to_lowercase(),
    )
    if (table["kind"] == "negative").any():
        raise MedstError(f"{path} is a list of two classes; use one of three, for instance COVIDx9A.")
    known = pl.col("kind").is_in(list(CLASS_OF)).fill_null(False)
    if not table.select(known.any()).item():
        raise MedstError(
            f"{path} is not a list of COVIDx: no line has the form 'patient file class source' with a known class."
        )
    odd = table.filter(~known)
    writer.reject("row", odd["line"], None, f"its class is not one of {', '.join(CLASSES)}", odd["rows"])
    again = (~pl.col("image_id").is_first_distinct(), f"more than once in {path.name}; its first line counts")
    table = writer.reject_where(table.filter(known), "row", again)
    label = pl.col("kind").replace_strict(CLASS_OF, return_dtype=pl.Int64)
    return table.select("patient_id", "rows", "image_id", label=label)


def split_train(images: pl.DataFrame, by_patient: bool) -> pl.DataFrame:
    """Split the training list into four fifths train and one fifth valid, by scikit-learn with random state 0.

    Args:
        images: of the training list, in its order.
        by_patient: keep a patient's images together; the released split does not.

    Returns:
        `images` with split; train, then valid, each in the released order.
    """
    rows = list(range(images.height))
    if by_patient:
        splitter = GroupShuffleSplit(n_splits=1, train_size=0.8, random_state=0)
        train, valid = (part.tolist() for part in next(splitter.split(rows, groups=images["patient_id"].to_list())))
    else:
        train, valid = train_test_split(rows, train_size=0.8, random_state=0)
    parts = (("train", train), ("valid", valid))
    return pl.concat([images[part].with_columns(split=pl.lit(name)) for name, part in parts])


def write_cohort(writer: Writer, raw: Path, options: Options) -> dict[str, Any]:
    """See `medst.cohort.registry.Reader`."""
    root = options.images or raw
    for part in ("train", "test"):
        if not (root / part).is_dir():
            raise MedstError(
                f"{root / part}: no such folder; it should hold the images. Give its parent folder with --images."
            )
    by_patient = options.split == "by-patient"
    train, test = (read_list(writer, find_list(raw, part)) for part in ("train", "test"))
    if by_patient:  # nothing that is tested on is trained on
        shared = pl.col("patient_id").is_in(test["patient_id"].unique().to_list())
        reason = "left out of training because its patient is in the test list"
        train = writer.reject_where(train, "unused", (shared, reason))
    if train.height < 5:
        raise MedstError(f"{raw}: the training list has {train.height} images, too few to split.")
    train = split_train(train, by_patient).with_columns(path="train/" + pl.col("image_id"))
    test = test.with_columns(split=pl.lit("test"), path="test/" + pl.col("image_id"))
    return write_classification(writer, root, pl.concat([train, test]).with_columns(image_id="path"), CLASSES)
