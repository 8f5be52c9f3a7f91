"""`medst app`."""

import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg


def app(
    model: Annotated[Path | None, Positional, arg(metavar="MODEL")] = None,
    cohort: Annotated[Path | None, Positional, arg(metavar="COHORT")] = None,
    /,
    embeddings: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    upload: int = 64,
    allow_host: tuple[str, ...] = (),
    no_token: bool = False,
) -> None:
    """Look at a patient over time, in a browser on this computer.

    Prints the address to open; the token in it keeps others out. MEDST_TOKEN in the environment sets the token.

    Args:
        model: folder of a model, or a released checkpoint; if not given, the demo's in medst-demo, with its cohort.
        cohort: folder of a prepared cohort, whose patients can be shown and searched.
        embeddings: folder that `medst embed MODEL COHORT` wrote, to search a large cohort quickly.
        host: address to listen on; any other than 127.0.0.1 lets others on your network reach the page.
        port: port to listen on; 0 takes the first free one from 7860.
        upload: largest file that a visitor may upload, in MB.
        allow_host: further host names to accept, for instance that of a reverse proxy.
        no_token: require no token: everyone who can reach the page can use it.
    """
    from medst.app.serve import is_public, last_demo, new_token, serving

    if model is None:
        model, cohort = last_demo()
    from medst.hub import check_name

    check_name(model, "model")
    token = None if no_token else new_token()
    if is_public(host):
        who = "everyone who can reach" if no_token else "everyone with the address below who can reach"
        print(f"Note: {who} {host} can use this page and see its cohort; the connection is not encrypted.")
    for end in ("SIGTERM", "SIGHUP"):  # so that visitors' files are removed in any case
        number = getattr(signal, end, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:  # ignored under nohup
            signal.signal(number, signal.default_int_handler)
    with serving(
        model, cohort, embeddings=embeddings, host=host, port=port, upload=upload, names=allow_host, token=token
    ) as address:
        print(f"{address}  (research software, not a medical device; Ctrl-C ends it)", flush=True)
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)
        for second in (
            "SIGINT",
            "SIGTERM",
            "SIGHUP",
        ):  # a second signal must not interrupt the removal of visitors' files
            if hasattr(signal, second):
                signal.signal(getattr(signal, second), signal.SIG_IGN)
