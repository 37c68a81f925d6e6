"""The command line in this process."""

import sys

import pytest

from intarsia.cli import main as module


@pytest.fixture
def intarsia(monkeypatch, capsys):
    """Runs a command in this process: exit code, output, errors."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["intarsia", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            module.main()
        captured = capsys.readouterr()
        return stop.value.code or 0, captured.out, captured.err

    return run
