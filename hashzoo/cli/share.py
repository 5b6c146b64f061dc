"""`hashzoo submit`, `hashzoo verify` and `hashzoo push`. Imports torch only when `verify` or `push` runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import cell_argument, check_root, file_path, plugin_option, settings
from hashzoo.cli.output import json_option, print_tables
from hashzoo.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hashzoo.results.bundle_checks import Finding
    from hashzoo.results.table import TextTable

SHOWN = 8  # findings of a check and status in the table


@click.command()
@click.argument("results", type=file_path, metavar="DIR")
@click.option("-o", "--output", required=True, type=file_path, metavar="BUNDLE", help="A new folder or .zip file.")
@click.option("--sign", type=file_path, metavar="KEY", help="Sign with this private SSH key, by ssh-keygen.")
def submit(results: Path, output: Path, sign: Path | None) -> None:
    """Write one bundle with the cells, splits, environment and digests of a results folder, for others to verify.

    Absolute paths in commands and reasons are replaced by FOLDER; settings and scores stay as they are. The folder can
    be a packed one. A bundle is a packed results folder itself.
    """
    from hashzoo.results.bundle import submit as write

    made = write(results, output, sign)
    for note in made.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"{made.cells} cells; written to {output}")
    click.echo(f"digest {made.digest}")


@click.command()
@click.argument("bundle", type=file_path, metavar="BUNDLE")
@click.option("--signers", type=file_path, metavar="FILE", help="Require a signature by one of these, by ssh-keygen.")
@click.option("--rerun", type=click.IntRange(min=1), metavar="N", help="Measure N random cells again.")
@click.option("--seed", type=click.IntRange(min=0), help="With --rerun: draws the cells [default: others each time].")
@click.option(
    "--tolerance", type=click.FloatRange(min=0), metavar="T", help="With --rerun: allow this difference of a score."
)
@click.option("--root", type=file_path, metavar="DIR", help="With --rerun: the folder of the dataset's files.")
@click.option("--set", "given", multiple=True, metavar="NAME.OPTION=VALUE", help="With --rerun: an option of a plugin.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="S", help="With --rerun: seconds for a cell."
)
@plugin_option
@json_option
def verify(bundle: Path, signers: Path | None, plugins: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Check a bundle of `hashzoo submit`: digests, cells, protocol, leaks, scores. Nothing in it is executed.

    Exits with 1 if a check failed. `--rerun` measures random cells again on this machine.
    """
    how = _rerun(**options)
    from hashzoo.api.verify import Verification
    from hashzoo.api.verify import verify as check
    from hashzoo.results.bundle_checks import FAILED

    found = check(bundle, Verification(signers, how, plugins))
    print_tables(
        "json" if as_json else "table",
        lambda: [_table(str(bundle), found)],
        lambda: [vars(one) for one in found],
    )
    if any(one.status == FAILED for one in found):
        sys.exit(1)


def _rerun(*, rerun: int | None, root: Path | None, given: tuple[str, ...], **options: Any) -> Any:
    """The options of a rerun, checked."""
    if rerun is None:
        typed = [name for name, value in {**options, "root": root, "set": given or None}.items() if value is not None]
        if typed:
            raise UsageError(f"--{typed[0]} requires --rerun N")
    check_root(root)
    table = settings(given)
    from hashzoo.api.rerun import Rerun

    options["tolerance"] = options["tolerance"] or 0.0
    return Rerun(rerun or 0, root=root, settings=table, **options)


def _table(title: str, found: Sequence[Finding]) -> TextTable:
    from collections import Counter

    from hashzoo.errors import printable
    from hashzoo.results.bundle_checks import STATUSES
    from hashzoo.results.table import Column, Entry, TextTable

    columns = (
        Column("check", text=True, identifies=True),
        Column("status", text=True, identifies=True),
        Column("detail", text=True, identifies=True, flexible=True),
    )
    colors = dict(zip(STATUSES, ("green", "yellow", "dim", "red"), strict=True))
    rows, counts = list[list[Entry]](), Counter[tuple[str, str]]()
    for one in found:
        counts[one.check, one.status] += 1
        if counts[one.check, one.status] <= SHOWN:
            text = Entry(one.status, style=colors[one.status])
            rows.append([Entry(one.check), text, Entry(printable(one.detail))])
    more = [
        f"{name}: {count - SHOWN} more {status}; --json" for (name, status), count in counts.items() if count > SHOWN
    ]
    total = Counter(one.status for one in found)
    summary = ", ".join(f"{total[status]} {status}" for status in reversed(STATUSES) if total[status])
    return TextTable(columns, rows, printable(title), [*more, summary])


@click.command()
@cell_argument
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--private", is_flag=True, help="Create the repository as a private one.")
@click.option("--revision", metavar="BRANCH", default="", help="Push to this branch; it is created if it is missing.")
@click.option("--message", metavar="TEXT", default="", help="The message of the commit.")
@click.option("--license", "license_name", metavar="ID", default="", help="License of the method, such as apache-2.0.")
@click.option("-o", "--output", type=file_path, metavar="DIR", help="Write the files to a new folder; push nothing.")
@plugin_option
def push(
    cell: Path, repository: str, license_name: str, output: Path | None, plugins: tuple[str, ...], **options: Any
) -> None:
    """Push a trained method to a repository of the Hugging Face Hub, with a model card, as one commit.

    CELL is a .json in the folder cells of a `hashzoo bench --save-weights`, or a folder of `hashzoo quantize -o`.
    Others name the repository as hf://OWNER/NAME where a command takes CELL. The token is that of `hf auth login`, or
    HF_TOKEN.
    """
    from hashzoo.export import hub

    hub.check_repository(repository, options["revision"])
    files = hub.share(cell, repository, license_name=license_name, plugins=plugins)
    if output is not None:
        hub.write(files, output)
        click.echo(f"{len(files)} files written to {output}; nothing was pushed")
        return
    click.echo(f"pushed as {hub.push(files, repository, **options)}")
