"""`medst embed`."""

from medst.cli.arguments import CohortPath, Model, Out
from medst.cli.counts import count_phrase


def embed(model: Model, cohort: CohortPath, out: Out, /, rows: int = 4096) -> None:
    """Write the embeddings of a cohort as Parquet files.

    Args:
        model: folder of a model, for instance RUN/best.
        cohort: folder of a prepared cohort of any data set.
        out: folder to write; a stopped job resumes.
        rows: rows per file.
    """
    from medst.hub import check_name

    check_name(model, "model")  # before the seconds that the other imports take
    from medst.embed import embed as run
    from medst.progress import Display

    with Display(["embed"]) as display:
        written = run(model, cohort, out, rows=rows, progress=display.stage("embed"))
    counts = count_phrase({"rows": written["rows"], "files": written["files"]})
    print(f"{out}: {counts}, {written['dim']} numbers per embedding")
