"""Progress bars: one line per stage with count, elapsed time and a note."""

import time
from collections.abc import Callable
from types import TracebackType

from rich import progress as bars
from rich.console import Console

Progress = Callable[[int, int, str], None]
"""Called with (done, total, note) during long work."""


class Display:
    """Progress of one or more named stages.

    On a terminal, bars move; elsewhere (a log file, CI), each stage prints a line when it starts and when it ends.

    >>> with Display(["count"]) as display:  # doctest: +ELLIPSIS
    ...     report = display.stage("count")
    ...     report(1, 2)
    ...     report(2, 2, "all counted")
    count ...
    count: 2 of 2, all counted (0 s)
    """

    def __init__(self, stages: list[str], console: Console | None = None) -> None:
        self.console = console or Console(soft_wrap=True)
        self.live = self.console.is_terminal
        self.progress = bars.Progress(
            bars.TextColumn("{task.description}", style="bold"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TextColumn("{task.fields[note]}", style="dim"),
            console=self.console,
            disable=not self.live,
        )
        self.tasks: dict[str, bars.TaskID] = {
            name: self.progress.add_task(name, start=False, total=None, note="") for name in stages
        }
        self.last: dict[str, tuple[int, int, str]] = {}
        self.began: dict[str, float] = {}

    def __enter__(self) -> "Display":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self.began):
            if kind is None:
                self.finish(name)
        self.progress.stop()

    def stage(self, name: str) -> Callable[..., None]:
        """Start a stage; returns a function that is called with (done, total, note)."""
        for other in list(self.began):
            self.finish(other)
        self.began[name] = time.monotonic()
        self.progress.start_task(self.tasks[name])
        if not self.live:
            self.console.print(f"{name} ...", highlight=False)

        def report(done: int, total: int, note: str = "") -> None:
            self.last[name] = (done, total, note)
            self.progress.update(self.tasks[name], completed=done, total=total, note=note)

        return report

    def finish(self, name: str) -> None:
        """End a stage."""
        seconds = time.monotonic() - self.began.pop(name)
        done, total, note = self.last.get(name, (1, 1, ""))
        self.progress.update(self.tasks[name], completed=done, total=total, note=note)
        self.progress.stop_task(self.tasks[name])
        if not self.live:
            line = f"{name}: {done} of {total}" + (f", {note}" if note else "")
            self.console.print(f"{line} ({seconds:.0f} s)", highlight=False)
