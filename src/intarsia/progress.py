"""What a person sees while something runs: a bar on a terminal, plain lines elsewhere, nothing when told so.

Progress goes to standard error; results go to standard output, and are not printed here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console


class Task(Protocol):
    """One running bar."""

    def update(self, done: float, text: str = "") -> None:
        """Set how much is done, and the text beside the bar."""
        ...


class Progress(Protocol):
    """Where notes and bars go."""

    def note(self, text: str) -> None:
        """One line."""
        ...

    def task(self, label: str, total: float) -> Any:
        """Context manager that gives a Task."""
        ...


class _SilentTask:
    def update(self, done: float, text: str = "") -> None:
        pass


class Silent:
    """Shows nothing."""

    def note(self, text: str) -> None:
        pass

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[Task]:
        yield _SilentTask()


class Plain:
    """Lines: a note as it comes, the state of a task now and then."""

    def __init__(self, every_seconds: float = 10.0) -> None:
        self.every_seconds = every_seconds

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[Task]:
        yield _PlainTask(self, label, total)


class _PlainTask:
    def __init__(self, lines: Plain, label: str, total: float) -> None:
        self.lines, self.label, self.total = lines, label, total
        self.last = time.monotonic()

    def update(self, done: float, text: str = "") -> None:
        now = time.monotonic()
        if now - self.last >= self.lines.every_seconds:
            self.last = now
            share = f"{100 * done / self.total:3.0f} %" if self.total else ""
            self.lines.note(f"{self.label:<8} {share}  {text}".rstrip())


class Bar:
    """A bar of rich, on a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console: Console = Console(stderr=True, highlight=False)

    def note(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    @contextmanager
    def task(self, label: str, total: float) -> Iterator[Task]:
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.fields[label]:<8}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(compact=True),
        )
        with RichProgress(*columns, console=self.console, transient=False) as bar:
            number = bar.add_task("", total=total, label=label, text="")
            yield _BarTask(bar, number)


class _BarTask:
    def __init__(self, bar: Any, number: Any) -> None:
        self.bar, self.number = bar, number

    def update(self, done: float, text: str = "") -> None:
        self.bar.update(self.number, completed=done, text=text)


def default_progress() -> Progress:
    """A bar if standard error is a terminal, else plain lines."""
    return Bar() if sys.stderr.isatty() else Plain()
