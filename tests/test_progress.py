"""Without a terminal, progress is printed as lines for a log."""

import io

from rich.console import Console

from medst.progress import Display


def test_stages_print_when_they_begin_and_end() -> None:
    out = io.StringIO()
    with Display(["draw", "train"], Console(file=out, force_terminal=False)) as display:
        display.stage("draw")(3, 3)
        display.stage("train")(10, 10, "loss 1.000")
    lines = out.getvalue().splitlines()
    assert lines[0] == "draw ..."
    assert lines[1].startswith("draw: 3 of 3 (")
    assert lines[2] == "train ..."
    assert lines[3].startswith("train: 10 of 10, loss 1.000 (")


def test_a_failed_stage_is_not_reported_as_finished() -> None:
    out = io.StringIO()
    try:
        with Display(["draw"], Console(file=out, force_terminal=False)) as display:
            display.stage("draw")(1, 3)
            raise RuntimeError
    except RuntimeError:
        pass
    assert out.getvalue() == "draw ...\n"


def test_on_a_terminal_there_is_a_bar() -> None:
    out = io.StringIO()
    with Display(["draw"], Console(file=out, force_terminal=True, width=100)) as display:
        display.stage("draw")(3, 3, "three drawn")
    assert "3/3" in out.getvalue()
    assert "three drawn" in out.getvalue()
