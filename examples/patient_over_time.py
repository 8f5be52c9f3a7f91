"""A patient of a cohort over time: similarity of phrases, and how each finding changed between the last two studies.

python examples/patient_over_time.py MODEL COHORT [--patient ID] [--phrases "pleural effusion" edema]
"""

import argparse
from pathlib import Path

import medst
from medst.cohort.store import open_cohort
from medst.errors import MedstError
from medst.use import stored_picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--patient", help="the one with the most studies, if not given")
    parser.add_argument("--phrases", nargs="+", default=["pleural effusion", "edema", "pneumothorax"])
    given = parser.parse_args()

    model, cohort = medst.load(given.model), open_cohort(given.cohort)
    patient = given.patient or cohort.pairs["patient_id"].value_counts(sort=True)["patient_id"][0]
    rows = cohort.pairs.filter(patient_id=patient)
    if rows.is_empty():
        raise MedstError(f"--patient {patient}: {given.cohort} has no patient of this id.")
    sizes = cohort.image_table

    def picture(row: int | None) -> medst.Picture | None:
        return None if row is None else stored_picture(cohort.images[row], sizes["height"][row], sizes["width"][row])

    studies = [
        medst.Study(picture(row["frontal"]), picture(row["lateral"]), row["time"], row["report"])
        for row in rows.iter_rows(named=True)
    ]
    line = model.timeline(studies, given.phrases)
    print(f"patient {patient}, similarity")
    print("date".ljust(12), *(phrase.rjust(18) for phrase in line.phrases))
    for study, row in zip(line.studies, line.similarity.tolist(), strict=True):
        print(f"{study.time:%Y-%m-%d}".ljust(12), *(f"{value:18.2f}" for value in row))
    if len(studies) > 1:
        prior, current = line.studies[-2:]
        for phrase in given.phrases:
            found = model.compare(prior, current, phrase)
            print(f"{phrase}: {found.most_likely} since the previous study ({found.change:+.3f})")


if __name__ == "__main__":
    try:
        main()
    except MedstError as error:
        raise SystemExit(str(error)) from None
