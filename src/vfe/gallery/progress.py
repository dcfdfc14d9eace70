"""Showing how far a job has come."""

from typing import Any


class Silent:
    """No progress is shown: the default in the library."""

    def start(self, description: str, total: int | None = None) -> None:
        """Nothing."""

    def step(self, n: int = 1, **numbers: float) -> None:
        """Nothing."""

    def done(self) -> None:
        """Nothing."""


class Bars:
    """A bar per phase with the newest numbers; one line per phase where there is no terminal.

    **Example:** `with Bars(Console(stderr=True)) as progress: progress.start("learning", 10)`.
    """

    def __init__(self, console: Any):
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.console = console
        self.live = bool(console.is_terminal)
        self.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[numbers]}", markup=False),
            console=console,
            disable=not self.live,
        )
        self.task: Any = None
        self.description = self.numbers = ""

    def __enter__(self) -> "Bars":
        self.bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.bars.stop()

    def start(self, description: str, total: int | None = None) -> None:
        """A new bar."""
        self.description, self.numbers = description, ""
        self.task = self.bars.add_task(description, total=total, numbers="")

    def step(self, n: int = 1, **numbers: float) -> None:
        """Move the bar on, and show the numbers."""
        if numbers:
            self.numbers = "  ".join(f"{k} {v:,.2f}".replace("-", "−") for k, v in numbers.items())
        self.bars.update(self.task, advance=n, numbers=self.numbers)

    def done(self) -> None:
        """Fill the bar; without a terminal, print one line."""
        if self.live:
            task = next(t for t in self.bars.tasks if t.id == self.task)
            total = task.total if task.total is not None else max(task.completed, 1)
            self.bars.update(self.task, total=total, completed=total)
        else:
            self.console.print(f"{self.description}: done  {self.numbers}".rstrip(), markup=False)
