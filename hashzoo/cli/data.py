"""`hashzoo data`: describes and checks datasets. Imports torch only when a command runs."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hashzoo.cli.options import file_path, plugin_option, settings
from hashzoo.cli.output import json_option
from hashzoo.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from hashzoo.registry.open_dataset import OpenedDataset
    from hashzoo.registry.zoo import Zoo
    from hashzoo.types import Splits

FAILED = 1
set_option = click.option("--set", "given", multiple=True, metavar="NAME.OPTION=VALUE", help="An option of a plugin.")
root_option = click.option(
    "--root", metavar="DIR", help="The folder of the dataset's files; short for --set NAME.root=DIR."
)


@click.group()
def data() -> None:
    """Describe and check datasets."""


@data.command()
@click.argument("name", metavar="NAME|DIR")
@set_option
@root_option
@click.option("--save", type=file_path, metavar="FILE.npz", help="Write the ids and labels of its splits.")
@json_option
@plugin_option
def show(
    name: str, given: tuple[str, ...], root: str | None, save: Path | None, as_json: bool, plugins: tuple[str, ...]
) -> None:
    """Describe a dataset: its files, splits, classes and labels, and the score of a random ranking.

    Two datasets with the same digest have the same queries and database in the same order. DIR is a folder or table,
    read by the one dataset that can.
    """
    from hashzoo.data import split_file
    from hashzoo.registry.open_dataset import describe, open_dataset
    from hashzoo.registry.zoo import load_plugins

    zoo = load_plugins(plugins)
    opened = open_dataset(zoo, name, root, settings(given))
    description = describe(zoo, opened)
    if save is not None:
        split_file.save(opened.data, save)
    if as_json:
        click.echo(json.dumps(description, indent=2))
        return
    _print_description(description)
    if save is not None:
        click.echo(f"written to {save}")


def _print_description(description: dict[str, Any]) -> None:
    click.echo(f"{description['dataset']}: {description['what']}")
    queries = description["queries"]
    chance = "-" if queries["chance_map"] is None else f"{queries['chance_map']:.4f}"
    lines = {
        "source": description["source"] or "made by its plugin",
        "options": " ".join(f"{n}={v}" for n, v in description["options"].items()) or "none",
        "digest": description["digest"],
        "classes": f"{len(description['classes'])}: {_short(description['classes'])}",
        "truth of recall@k": f"the exact neighbors by {description['metric']}",
        "train in database": f"{description['train_in_database']:,} of {description['parts']['train']['pictures']:,}",
        "queries": f"{queries['asked']:,}, {queries['unlabelled']:,} without a label, "
        f"{queries['without_relevant']:,} without a relevant item",
        "mAP of chance": chance,
    }
    if not description["metric"]:
        del lines["truth of recall@k"]
    if not description["classes"]:
        lines |= {"classes": "none: there are no labels", "queries": f"{queries['asked']:,}"}
        del lines["mAP of chance"]
    if queries["without_relevant"]:
        lines["mAP ceiling"] = f"{queries['map_ceiling_if_counted']:.4f} for code that counts those as 0"
    if description["composed"]:
        lines["composed"] = f"of two images each, by {description['composed']}"
    if description["pretraining"]:
        lines["pretraining"] = f"backbones trained on {', '.join(description['pretraining'])} have seen this data"
    lines |= {f"note: {key}": value for key, value in description["notes"].items()}
    lines |= {f"found: {one['finding']}": one["what"] for one in description["found"]}
    for key, value in lines.items():
        click.echo(f"{key:<18} {value}")
    click.echo()
    _print([{"part": name, **_part(part)} for name, part in description["parts"].items()], "part")


def _part(part: dict[str, Any]) -> dict[str, str]:
    counts = sorted(count for count in part["class_counts"] if count)
    labels = part["labels"]
    a_class = " to ".join(f"{count:,}" for count in dict.fromkeys([counts[0], counts[-1]])) if counts else "-"
    alone = labels["min"] == labels["max"]
    per_image = f"{labels['max']}" if alone else f"{labels['mean']:.2f} ({labels['min']} to {labels['max']})"
    return {
        "images": f"{part['pictures']:,}",
        "classes": f"{len(counts)}",
        "images a class": a_class,
        "labels an image": per_image,
    }


def _short(names: list[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


@data.command()
@click.argument("name", metavar="NAME|DIR")
@set_option
@root_option
@click.option("--near", is_flag=True, help="Also search for near-duplicate images.")
@click.option(
    "--distance",
    type=click.IntRange(0, 16),
    default=4,
    show_default=True,
    help="Bits of 64 in which near-duplicates can differ.",
)
@click.option("--backbone", metavar="B", help="Check whether this backbone was trained on the data.")
@click.option("--allow", multiple=True, metavar="FINDING", help="Accept this finding; can be repeated.")
@json_option
@plugin_option
def check(name: str, given: tuple[str, ...], root: str | None, plugins: tuple[str, ...], **options: Any) -> None:
    """Check a dataset: queries in the database or training set, duplicates, missing labels, damaged images.

    DIR is a folder or table, read by the one dataset that can. Exit code 0: no finding, except those that the
    dataset's notes or --allow name; 1: a finding.
    """
    from hashzoo.api.progress import bar
    from hashzoo.data import audit
    from hashzoo.data.finding_kinds import KINDS
    from hashzoo.registry.open_dataset import open_dataset
    from hashzoo.registry.zoo import load_plugins

    chosen = _CheckOptions(**options)
    for one in chosen.allow:
        if one not in KINDS:
            raise UsageError(unknown_name("finding", one, KINDS))
    zoo, values = load_plugins(plugins), settings(given)
    weights = values.pop(chosen.backbone, {}) if chosen.backbone is not None else {}
    opened = open_dataset(zoo, name, root, values)
    findings = []
    if chosen.backbone is not None:
        findings += audit.contaminated(opened.data, _pretraining_data(zoo, chosen.backbone, weights, opened.data))
    with bar("images") as progress:
        distance = chosen.distance if chosen.near else None
        findings += audit.audit_splits(opened.data, near=distance, progress=progress)
    lines = audit.report(findings, opened.data.notes, chosen.allow)
    _print_findings(opened, lines, chosen.as_json)
    if any(line["status"] == "found" for line in lines):
        sys.exit(FAILED)


@dataclass(frozen=True)
class _CheckOptions:
    near: bool
    distance: int
    backbone: str | None
    allow: tuple[str, ...]
    as_json: bool


def _pretraining_data(zoo: Zoo, backbone: str, given: dict[str, Any], splits: Splits) -> str:
    """The name of the labeled data that a backbone was trained on; it is built as in a benchmark."""
    from hashzoo.data.integrity import drop_bad_images, inspect_splits
    from hashzoo.registry.build import build_backbone, convert_options, image_shape

    values = convert_options("backbone", backbone, zoo.backbone(backbone).factory, given)
    shape = image_shape(drop_bad_images(splits, inspect_splits(splits)))
    return str(build_backbone(zoo, backbone, shape, values, 0).trained_on)


def _print_findings(opened: OpenedDataset, lines: list[dict[str, Any]], as_json: bool) -> None:
    from hashzoo.data.split_file import split_digest

    count, digest = sum(line["status"] == "found" for line in lines), split_digest(opened.data)
    if as_json:
        head = {"dataset": opened.name, "digest": digest, "ok": not count}
        click.echo(json.dumps({**head, "findings": lines}, indent=2))
        return
    sizes = ", ".join(f"{len(part):,} {part_name}" for part_name, part in opened.data.parts().items())
    click.echo(f"{opened.name}: {sizes}; split {digest}")
    _print_lines(lines)
    click.echo(f"{count or 'no'} {'finding' if count == 1 else 'findings'} to fix")


def _print_lines(lines: list[dict[str, Any]]) -> None:
    """Print the findings as a table, then a sentence for each."""
    if not lines:
        return
    _print(
        [
            {
                "finding": line["finding"],
                "status": line["status"],
                "count": f"{line['count']:,} of {line['of']:,}",
                "example": line["examples"][0] if line["examples"] else "",
            }
            for line in lines
        ],
        "finding",
        sentence="example",
    )
    click.echo()
    for line in lines:
        detail = f" ({line['detail']})" if line["detail"] else ""
        click.echo(f"{line['finding']}: {line['why']}{detail}; {line['cure']}.")


def _print(rows: list[dict[str, Any]], identifies: str, sentence: str = "") -> None:
    from hashzoo.results import table

    table.show([table.of_records(rows, identifies=identifies, sentence=sentence)])
