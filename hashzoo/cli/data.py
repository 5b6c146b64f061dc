"""``hashzoo data``: what a protocol is, and what is wrong with it. Heavy imports wait for a command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from hashzoo.cli.options import plugin_option, settings
from hashzoo.errors import UsageError, unknown_name

FAILED = 1
set_option = click.option("--set", "given", multiple=True, metavar="NAME.OPTION=VALUE", help="An option of a plugin.")
root_option = click.option("--root", metavar="DIR", help="The folder of its files; short for --set NAME.root=DIR.")
json_option = click.option("--json", "as_json", is_flag=True, help="As JSON, for programs.")


@click.group()
def data() -> None:
    """What a protocol is made of, and what is wrong with it."""


@data.command()
@click.argument("name", metavar="NAME|DIR")
@set_option
@root_option
@click.option("--save", type=click.Path(path_type=Path), metavar="FILE.npz", help="Write ids and labels of its parts.")
@json_option
@plugin_option
def show(
    name: str, given: tuple[str, ...], root: str | None, save: Path | None, as_json: bool, plugins: tuple[str, ...]
) -> None:
    """What a protocol is: its files, parts, classes and labels, and what a random ranking scores on it.

    Two protocols with one digest ask and store the same images in the same order. Of a folder or table DIR, what the
    one dataset makes of it that reads it.
    """
    from hashzoo.data import split_file
    from hashzoo.registry import zoo
    from hashzoo.registry.open_dataset import describe, open_dataset

    house = zoo.load_plugins(plugins)
    opened = open_dataset(house, name, root, settings(given))
    told = describe(house, opened)
    if save is not None:
        split_file.save(opened.data, save)
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    _show(told)
    if save is not None:
        click.echo(f"written to {save}")


def _show(told: dict[str, Any]) -> None:
    click.echo(f"{told['dataset']}: {told['what']}")
    queries = told["queries"]
    chance = "-" if queries["chance_map"] is None else f"{queries['chance_map']:.4f}"
    lines = {
        "source": told["source"] or "made by its plugin",
        "options": " ".join(f"{n}={v}" for n, v in told["options"].items()) or "none",
        "digest": told["digest"],
        "classes": f"{len(told['classes'])}: {_short(told['classes'])}",
        "train in database": f"{told['train_in_database']:,} of {told['parts']['train']['pictures']:,}",
        "queries": f"{queries['asked']:,}, {queries['unlabelled']:,} without a label, "
        f"{queries['without_relevant']:,} without a relevant item",
        "mAP of chance": chance,
    }
    if queries["without_relevant"]:
        lines["mAP ceiling"] = f"{queries['map_ceiling_if_counted']:.4f} for code that counts those as 0"
    if told["composed"]:
        lines["composed"] = f"of two images each, by {told['composed']}"
    if told["pretraining"]:
        lines["pretraining"] = f"backbones trained on {', '.join(told['pretraining'])} have seen this data"
    lines |= {f"note: {key}": value for key, value in told["notes"].items()}
    for key, value in lines.items():
        click.echo(f"{key:<18} {value}")
    click.echo()
    _print([{"part": name, **_part(part)} for name, part in told["parts"].items()])


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
@click.option("--near", is_flag=True, help="Look for images that look alike, too.")
@click.option(
    "--distance",
    type=click.IntRange(0, 16),
    default=4,
    show_default=True,
    help="Bits of 64 that look alike may differ.",
)
@click.option("--backbone", metavar="B", help="Say whether this backbone was trained on the data.")
@click.option("--allow", multiple=True, metavar="FINDING", help="Do not fail for it; may be repeated.")
@json_option
@plugin_option
def check(
    name: str,
    given: tuple[str, ...],
    root: str | None,
    near: bool,
    distance: int,
    backbone: str | None,
    allow: tuple[str, ...],
    as_json: bool,
    plugins: tuple[str, ...],
) -> None:
    """What is wrong with a protocol: queries that are stored or learned from, copies, missing labels and images.

    A folder or table DIR is read by the one dataset that can. Exit code 0: nothing is wrong but what the protocol
    declares in its notes or --allow names; 1: something is.
    """
    from hashzoo.api.progress import bar
    from hashzoo.data import audit
    from hashzoo.data.split_file import split_digest
    from hashzoo.registry import zoo
    from hashzoo.registry.open_dataset import open_dataset

    for one in allow:
        if one not in audit.KINDS:
            raise UsageError(unknown_name("finding", one, audit.KINDS))
    house = zoo.load_plugins(plugins)
    set_for = settings(given)
    weights = set_for.pop(backbone, {}) if backbone is not None else {}
    opened = open_dataset(house, name, root, set_for)
    found = []
    if backbone is not None:
        found += audit.contaminated(opened.data, _trained_on(house, backbone, weights, opened.data))
    with bar("images") as tell:
        found += audit.audit_splits(opened.data, near=distance if near else None, progress=tell)
    lines = audit.report(found, opened.data.notes, allow)
    wrong = [line for line in lines if line["status"] == "found"]
    if as_json:
        head = {"dataset": opened.name, "digest": split_digest(opened.data), "ok": not wrong}
        click.echo(json.dumps({**head, "findings": lines}, indent=2))
    else:
        sizes = ", ".join(f"{len(part):,} {part_name}" for part_name, part in opened.data.parts().items())
        click.echo(f"{opened.name}: {sizes}; split {split_digest(opened.data)}")
        _tell(lines)
        click.echo(f"{len(wrong) or 'no'} {'finding' if len(wrong) == 1 else 'findings'} to mend")
    if wrong:
        sys.exit(FAILED)


def _trained_on(house: Any, backbone: str, set_for: dict[str, Any], splits: Any) -> str:
    """What the labelled data behind a backbone's weights is called; it is built as a benchmark builds it."""
    from hashzoo.data.integrity import drop_bad_images, inspect_splits
    from hashzoo.registry.build import build_backbone, convert_options, image_shape

    given = convert_options("backbone", backbone, house.backbone(backbone).factory, set_for)
    shape = image_shape(drop_bad_images(splits, inspect_splits(splits)))
    return str(build_backbone(house, backbone, shape, given, 0).trained_on)


def _tell(lines: list[dict[str, Any]]) -> None:
    """The findings as a table, then a sentence for each."""
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
        ]
    )
    click.echo()
    for line in lines:
        detail = f" ({line['detail']})" if line["detail"] else ""
        click.echo(f"{line['finding']}: {line['why']}{detail}; {line['cure']}.")


def _print(rows: list[dict[str, Any]]) -> None:
    from hashzoo.cli.listing import table, wide

    wide().print(table(rows))
