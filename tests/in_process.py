"""Commands in this process: their exit code, and the one line of a refusal."""

from __future__ import annotations

from hashzoo.cli.main import main


def command(*arguments: object) -> int:
    """The exit code of a command."""
    try:
        main(list(map(str, arguments)))
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def refused(capsys, code: int, *arguments: object) -> str:
    """The one line that says why a command was refused with an exit code."""
    capsys.readouterr()
    assert command(*arguments) == code
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1, error
    return error
