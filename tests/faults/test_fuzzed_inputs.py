"""Whatever stands in tables, lists, folders, codes and boards: an exit code, one line and no warning of a library."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.faults.test_fuzzed_commands import tame, wrong_with

__all__ = ["tame"]  # a fixture

ROOT = Path(__file__).parents[2]
IMAGES = [f"{name}/{number}.png" for name in ("ant", "bee", "cat") for number in range(4)]
METHODS = ["itq", "lsh", "csq", "dpn", "dch", "imh", "ssh", "cca-itq", "sdh", "chance", "l*", "tanh+csq"]
HEADERS = [
    "path,label", "path,labels", "image,label,part", "path,label,split", "file,class", "path;label", "path\tlabel",
    "path,label,label", "label,path", "path", "", "\ufeffpath,label", "Path,Label,Fold", "path,label,part,weight",
]  # fmt: skip
LABELS = [
    "ant", "bee", "cat", "ant;bee", "ant|cat", "['ant', 'bee']", '"ant,bee"', "ant,bee", "Ant", " ant", "ant ", "nan",
    "", "None", "1", "1.0", "01", "-1", "1e3", "caf\u00e9", "cafe\u0301", "\u72ac", "a/b", "..", "\x07", "x" * 300, "0",
]  # fmt: skip
PARTS = ["train", "query", "database", "test", "val", "TRAIN", "", "0", "holdout", "train;query", "database"]
FOLDERS = [
    "train", "val", "test", "valid", "query", "database", "ant", "bee", "cat", "Ant", "@eaDir", "__MACOSX",
    ".thumbnails", ".ipynb_checkpoints", "train/ant", "train/bee", "val/ant", "val/bee", "test/ant",
    "\u72ac", "a b", "1", "01", "nan",
]  # fmt: skip
NAMES = [
    "0.png",
    "1.PNG",
    "2.jpg",
    "3.HEIC",
    "4.avif",
    "5.svg",
    "6.jxl",
    "7.cr2",
    "8.txt",
    "._9.png",
    "Thumbs.db",
    "a.tif",
]
CONTENTS = ["good", "good", "good", "gray", "deep", "cmyk", "cut", "empty", "text", "palette", "huge"]
ENCODINGS = ["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-32"]
TYPES = [
    np.bool_,
    np.uint8,
    np.int8,
    np.int64,
    np.float16,
    np.float32,
    np.float64,
    np.uint64,
    np.complex64,
    np.str_,
    object,
]
VALUES = [
    [0, 1],
    [-1, 1],
    [0, 255],
    [0, 1, 2],
    [1],
    [0],
    [0.5, -0.5],
    [float("nan"), 1],
    [float("inf"), 0],
    [127, -128],
    [],
]


def image(path: Path, dice: random.Random, kind: str = "good") -> None:
    """A small image, or what is not quite one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(dice.randrange(2**32)).integers(0, 256, (8, 8, 3), np.uint8)
    if kind in ("empty", "text"):
        path.write_bytes(b"" if kind == "empty" else b"<html>not an image</html>")
        return
    made = Image.fromarray(pixels)
    if kind == "deep":
        made = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * dice.choice([1, 16, 256]))
    elif kind == "huge":
        made = made.resize((1, 3000))
    else:
        made = made.convert({"gray": "L", "cmyk": "CMYK", "palette": "P"}.get(kind, "RGB"))
    made.save(path, {"cmyk": "jpeg"}.get(kind, "png"))
    if kind == "cut":
        path.write_bytes(path.read_bytes()[: dice.randrange(120)])


def table(root: Path, dice: random.Random) -> list[str]:
    header, gap = dice.choice(HEADERS), dice.choice([",", ",", ",", ";", "\t"])
    rows = []
    for _ in range(dice.randrange(30)):
        cells = [
            dice.choice([*IMAGES, *IMAGES, "none.png", "../x.png", ""]),
            dice.choice(LABELS[: dice.choice([3, 6, 99])]),
        ]
        cells += [dice.choice(PARTS[: dice.choice([3, 99])])] * (header.count(gap) - 1)
        rows.append(gap.join(cells + ["extra"] * (dice.random() < 0.05)))
    text = dice.choice(["\n", "\r\n", "\r"]).join([header, *rows])
    (root / "t.csv").write_bytes(text.encode(dice.choice(ENCODINGS), "replace"))
    return ["folder", "t.csv", "folder.size=8"]


def lists(root: Path, dice: random.Random) -> list[str]:
    width = dice.randrange(1, 5)
    for name in dice.sample(
        ["train.txt", "test.txt", "database.txt", "query.txt", "train_label.txt"], dice.randrange(6)
    ):
        lines = []
        for _ in range(dice.randrange(20)):
            ones = [
                str(dice.choice([0, 1, 1, 2, 9, -1, "nan", "1.0", "x"][: dice.choice([2, 3, 99])]))
                for _ in range(width)
            ]
            lines.append(" ".join([dice.choice([*IMAGES, "none.png"]), *ones[: dice.choice([width, width, 1, 0])]]))
        (root / name).write_bytes("\n".join(lines).encode(dice.choice(ENCODINGS), "replace"))
    return ["lists", ".", f"lists.database={dice.choice(['others', 'all', 'train', 'list', 'x'])}"]


def folder(root: Path, dice: random.Random) -> list[str]:
    for name in dice.sample(FOLDERS, dice.randrange(1, 8)):
        for file in dice.sample(NAMES, dice.randrange(1, 7)):
            image(root / "f" / name / file, dice, dice.choice(CONTENTS))
    return ["folder", "f", "folder.size=8"]


def data_command(root: Path, dice: random.Random) -> list[str]:
    """A check, a look or a dry run of data of the user's own."""
    name, path, setting = dice.choice([table, table, lists, folder])(root, dice)
    given = ["--root", path, *(["--set", setting] * (dice.random() < 0.8))]
    if dice.random() < 0.6:
        return [
            "data",
            dice.choice(["check", "check", "show"]),
            name,
            *given,
            *dice.choice([[], [], ["--near"], ["--json"]]),
        ]
    methods = ",".join(dice.sample(METHODS, dice.randrange(1, 3)))
    options = ["--methods", methods, "--bits", dice.choice(["4", "8", "64"]), "--no-baselines", "--dry-run"]
    return ["bench", "digits", "--dataset", name, *given, "--quick", *options]


def codes_command(root: Path, dice: random.Random) -> list[str]:
    """Codes and labels of any type and shape."""
    drawn = np.random.default_rng(dice.randrange(2**32))
    arrays = {}
    bits, rows = dice.choice([1, 2, 8, 12, 16]), {"query": dice.randrange(5), "database": dice.randrange(9)}
    kinds = {part: (dice.choice(TYPES), dice.choice(VALUES)) for part in ("codes", "labels")}
    for side in rows:
        for part in ("codes", "labels"):
            dtype, values = kinds[part] if dice.random() < 0.8 else (dice.choice(TYPES), dice.choice(VALUES))
            shape = (
                (rows[side], bits)
                if part == "codes"
                else dice.choice([(rows[side],), (rows[side],), (rows[side], 3), ()])
            )
            chosen = drawn.choice(values, shape) if values else drawn.integers(0, 256, shape)
            with np.errstate(all="ignore"):
                arrays[f"{side}_{part}"] = np.asarray(np.nan_to_num(chosen) if dtype in TYPES[:8] else chosen).astype(
                    dtype
                )
    if dice.random() < 0.05:
        del arrays[dice.choice(sorted(arrays))]
    np.savez(root / "c.npz", **arrays)
    metrics = dice.choice(["map@all", "map@10,p@h2", "ndcg@5", "bit-balance", "rprecision"])
    return ["evaluate", "c.npz", "--metrics", metrics, *dice.choice([[], [], ["--bits", str(bits)], ["--json"]])]


def board_command(root: Path, dice: random.Random) -> list[str]:
    """A board with changed cells."""
    text = (ROOT / "results" / "cifar10-tuned" / "leaderboard.csv").read_text()
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(dice.randrange(4)):
        row = dice.choice(rows)
        row[dice.randrange(len(row))] = dice.choice([*LABELS, "TRUE", "inf", "1e999", "=1+1", "[bold]", '"'])
    (root / "b").mkdir(exist_ok=True)
    (root / "b" / "leaderboard.csv").write_bytes(
        "\n".join(map(",".join, rows)).encode(dice.choice(ENCODINGS), "replace")
    )
    given = dice.choice(["b/leaderboard.csv", "b/leaderboard.csv", "b"])
    return dice.choice(
        [
            ["show", given, *dice.choice([[], ["--json"], ["--rank"], ["--sort", "map@all"], ["--format", "latex"]])],
            ["compare", given, given],
            ["plot", dice.choice(["bits", "cost", "ranks", "pr", "balance", "x"]), given, "-o", "o.svg"],
            ["report", given, "-o", "o.html"],
        ]
    )


def test_inputs(tally, whole, tame):
    """Commands on tables, lists, folders, codes and boards of random content: one line, no traceback, no warning"""
    maker = random.Random(0)
    for name in IMAGES:
        image(tame / name, maker)
    kept = {path.name for path in tame.iterdir()}
    for number in range(1700 if whole else 20):
        dice = random.Random(number)
        arguments = dice.choice([data_command, data_command, codes_command, board_command])(tame, dice)
        wrong = wrong_with(arguments)
        tally.case(wrong and f"input {number}: {wrong}")
        for path in [path for path in tame.iterdir() if path.name not in kept]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
