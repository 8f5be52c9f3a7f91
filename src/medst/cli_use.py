"""The verbs that use a model; heavy imports stay inside of them, as in `cli.py`."""

import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from medst.cli_arguments import CohortPath, Model, Out


def embed(model: Model, cohort: CohortPath, out: Out, /, rows: int = 4096) -> None:
    """Write the embeddings of a whole cohort as Parquet files.

    Args:
        model: folder of a model, for instance RUN/best.
        cohort: folder of a prepared cohort of any data set.
        out: folder to write; a job that was stopped is resumed.
        rows: rows per file.
    """
    from medst.embed import embed as run
    from medst.progress import Display

    with Display(["embed"]) as display:
        said = run(model, cohort, out, rows=rows, progress=display.stage("embed"))
    print(f"{out}: {said['rows']} rows of {said['dim']} numbers in {said['files']} files")


def app(
    model: Annotated[Path | None, Positional, arg(metavar="MODEL")] = None,
    cohort: Annotated[Path | None, Positional, arg(metavar="COHORT")] = None,
    /,
    embeddings: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    upload: int = 64,
) -> None:
    """Look at a patient over time, in a browser on this computer.

    Args:
        model: folder of a model or a released checkpoint; if not given, that of the demo in medst-demo, with its cohort.
        cohort: folder of a prepared cohort with patients, to choose from and to search in.
        embeddings: folder that `medst embed MODEL COHORT` wrote, to search a large cohort.
        host: address to listen at; any but 127.0.0.1 lets others on your network see the cohort, without a password.
        port: 0 takes a free one from 7860 on.
        upload: largest file that a visitor may add, in MB.
    """
    from medst.app.serve import last_demo, listening, serving

    if model is None:
        model, cohort = last_demo()
    if listening(host):
        print(f"Note: everyone who can reach {host} can see this page and the cohort on it; there is no password.")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that visitors' files go in any case
    with serving(model, cohort, embeddings=embeddings, host=host, port=port, upload=upload) as address:
        print(f"{address}  (research software, not a medical device; Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
        for second in (signal.SIGINT, signal.SIGTERM):  # must not keep visitors' files from being removed
            signal.signal(second, signal.SIG_IGN)
