"""Progress bars: one line per stage with count, elapsed time and a note."""

import time
from collections.abc import Callable

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
        self.tasks = {name: self.progress.add_task(name, start=False, total=None, note="") for name in stages}
        self.current = ""
        self.last: tuple[int, int, str] = (1, 1, "")

    def __enter__(self) -> "Display":
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        self.progress.stop()

    def stage(self, name: str) -> Callable[..., None]:
        """Start a stage, after the one before; returns a function that is called with (done, total, note)."""
        self._finish()
        self.current, self.last, self.began = name, (1, 1, ""), time.monotonic()
        self.progress.start_task(self.tasks[name])
        if not self.live:
            self.console.print(f"{name} ...", highlight=False)

        def report(done: int, total: int, note: str = "") -> None:
            self.last = done, total, note
            self.progress.update(self.tasks[name], completed=done, total=total, note=note)

        return report

    def _finish(self) -> None:
        if not self.current:
            return
        done, total, note = self.last
        task = self.tasks[self.current]
        self.progress.update(task, completed=done, total=total, note=note)
        self.progress.stop_task(task)
        if not self.live:
            line = f"{self.current}: {done} of {total}" + (f", {note}" if note else "")
            self.console.print(f"{line} ({time.monotonic() - self.began:.0f} s)", highlight=False)
        self.current = ""
