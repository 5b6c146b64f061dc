"""Whatever is typed, and whatever stands in a benchmark file: an exit code from 0 to 3 (or 130) and no traceback."""

from __future__ import annotations

import io
import os
import random
import re
import sys
import time
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st

from hashzoo.bench.benchmark_file import shipped
from hashzoo.cli.main import main

NUMBERS = [
    "0", "-1", "1", "8", "16", "2.5", "1e3", "1e999", "-0", "nan", "inf", "-inf", "99999999999999999999", "1_000",
    "\uff10\uff11", "0x10", "07", str(2**31), str(2**32), str(2**63), "+4", " 4 ", "4,", ",", "", "4,,8", "8,8",
    "16,-3", "a", "\u0967\u096c",
]  # fmt: skip
NAMES = [
    "lsh", "itq", "dhn", "csq", "l*", "?sh", "[a-", "[!", "*", "**", "z*", "tanh+dhn", "+", "lsh+", "a+b+c", "LSH",
    "lhs", "digits.small", "digits.standard", "digits.lt50", "scenes.small", "folder", "lists", "cifar10.query1000",
    "pixels", "tiny", "torchvision/", "torchvision/*", "torchvision/x", "torchvision/squeezenet1_1", "timm/x",
    "dual-stream", "none", "map@all", "map@10", "map@0", "map@-1", "map@", "p@h2", "p@h", "p@h999", "p@h-1", "p@",
    "ndcg@5", "map@all/tail", "map@all:best", "map@all:", "map@1e3", "@", "digits", "zoo", "paper/dhn", "paper/",
    "../digits", "digits.toml", "x.toml", "", " ", "'", '"', "\\", "/", ".", "..", "=", "-", "--", "---", "\x00",
    "\x1b[31m", "\n", "\r\n", "é", "\u202e", "\ud800", "😀", "a" * 3000, "%s%n", "{}", "{0}", "[bold]", "[/]", "$HOME",
    "`id`", "~", "~nobody", "CON", "\ufeff",
]  # fmt: skip
KEYS = [
    "dhn.weight", "lsh.nothing", "csq.", ".weight", "train.epochs", "train.lr", "train.backbone", "train.select",
    "train.x", "digits.small.seed", "digits.small.validation", "tiny.width", "folder.size", "folder.root", "x.y.z",
    "tanh+dhn.loss.weight", "itq.iterations", "train.threads", "train.batch", "train.draws",
]  # fmt: skip
VALUES = [
    *NUMBERS,
    "true",
    "'x'",
    "[1, 2]",
    "{a = 1}",
    "[[1]]",
    "1979-05-27",
    '"""',
    "[",
    "]\nx=1",
    "{}",
    "[]",
    "\x00",
    "\ud800",
]

#: What Python prints for a warning.
RAW = re.compile(r"^.*\.py:\d+: \w*Warning: .*$", re.MULTILINE)

words = st.sampled_from(NAMES) | st.text(max_size=12)
numbers = st.sampled_from(NUMBERS) | st.integers().map(str) | st.floats().map(str)
lists = st.lists(words | numbers, max_size=4).map(",".join)
assignments = st.builds("{}={}".format, st.sampled_from(KEYS) | words, st.sampled_from(VALUES) | words)


def harmless(text):
    """A name that stays in the folder where the command runs; a path elsewhere is not what is tried here."""
    return text.replace("/", "_").replace("~", "_").replace("..", "_")


places = words.map(harmless)


def option(name, values):
    return st.tuples(st.just(name), values).map(list) | values.map(lambda value: [f"{name}={value}"])


BENCH = st.one_of(
    option("--methods", lists | words), option("--dataset", lists | words), option("--backbone", words),
    option("--bits", numbers | lists), option("--seeds", numbers | lists), option("--metrics", lists | words),
    option("--epochs", numbers), option("--set", assignments | words), option("--results", places),
    option("--jobs", numbers), option("--timeout", numbers), option("--root", places), option("--rerun", words),
    option("--device", words), option("--workers", numbers), option("--on-bad-image", words),
    option("--plugin", places), st.sampled_from([["--no-baselines"], ["--quick"], ["--save-weights"], ["--help"]]),
    words.map(lambda text: [f"--{text}"]),
)  # fmt: skip
DATA = st.one_of(
    option("--set", assignments | words), option("--root", places), option("--distance", numbers),
    option("--backbone", words), option("--allow", words), option("--plugin", places),
    st.sampled_from([["--near"], ["--json"]]), words.map(lambda text: [f"--{text}"]),
)  # fmt: skip
LIST = st.one_of(
    option("--kind", words), option("--year", numbers | words), option("--supervision", words),
    option("--labels", words), st.just(["--json"]), words.map(lambda text: [text]),
)  # fmt: skip
FILES = st.one_of(
    option("--metrics", lists), option("--bits", numbers), option("--sort", words), option("--columns", lists),
    option("--by", words), option("--fail-on", words | st.builds("{}:{}".format, words, numbers)),
    option("-o", places), option("--run", places), option("--figure", words), option("--bits", numbers),
    st.just(["--multilabel"]),
)  # fmt: skip
KINDS = ["methods", "backbones", "heads", "losses", "datasets", "metrics", "benchmarks", "plugins"]


def joined(*parts):
    """The words of each part, one after another."""
    return st.tuples(*parts).map(lambda found: [word for part in found for word in part])


def many(options, most=4):
    return st.lists(options, max_size=most).map(lambda found: [word for part in found for word in part])


def one(values):
    return values.map(lambda value: [value])


COMMANDS = st.one_of(
    joined(
        st.just(["bench"]),
        one(st.sampled_from(["digits", "digits", "x.toml"]) | words),
        many(BENCH),
        st.just(["--dry-run"]),
    ),
    joined(st.just(["bench", "digits", "--quick", "--dry-run"]), many(BENCH, 2)),
    joined(
        st.just(["data"]), one(st.sampled_from(["show", "check"])), one(words | st.just("digits.small")), many(DATA)
    ),
    joined(st.just(["list"]), one(st.sampled_from(KINDS) | words), many(LIST)),
    joined(st.just(["cite"]), many(one(words | lists)), st.sampled_from([[], ["--json"]])),
    joined(one(st.sampled_from(["show", "compare", "evaluate", "explain"])), many(one(places), 2), many(FILES)),
    joined(many(one(words), 2), st.sampled_from([[], ["--debug"], ["--version"], ["-h"]])),
)


def wrong_with(arguments):
    """What is bad about how a command ended; empty where it ended as it may."""
    arguments = [word.replace("\0", "") for word in arguments]  # no system can hand a zero byte to a program
    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            warnings.resetwarnings()  # as for a user, who does not see these:
            for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
                warnings.simplefilter("ignore", category)
            main(arguments)
        code = 0
    except SystemExit as stopped:
        code = stopped.code or 0
    except BaseException as error:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
        return f"{arguments}: {type(error).__name__} at {where}: {str(error)[:200]}"
    said = err.getvalue()
    usage = "Usage: " in said  # click's own errors take three lines, and name the option
    if code not in (0, 1, 2, 3, 130):
        return f"{arguments}: exit {code}"
    if "Traceback" in said or (code in (2, 3) and not usage and len(said.strip().splitlines()) != 1):
        return f"{arguments}: exit {code}: {said[-300:]}"
    if raw := RAW.search(said + out.getvalue()):
        return f"{arguments}: a warning of a library: {raw[0]}"
    return ""


@pytest.fixture
def tame(tmp_path, monkeypatch):
    """A folder of its own, a home without anything, and a network that nobody answers from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setattr(sys, "argv", ["hashzoo"])
    (tmp_path / "x.toml").write_text(shipped()["digits"].read_text())
    return tmp_path


def tried(tally, strategy, count, act):
    """``act`` on so many drawn cases, the same ones every day."""

    @seeded(2026)
    @settings(
        max_examples=count, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(strategy)
    def each(case):
        start = time.monotonic()
        wrong = act(case)
        tally.case(wrong or ("" if time.monotonic() - start < 60 else f"{case}: took a minute"))

    each()


def test_the_command_line(tally, whole, tame):
    """The command line fuzzed with hypothesis: exit codes 0 to 3 and one line, never a traceback"""
    tried(tally, COMMANDS, 1300 if whole else 60, wrong_with)


# --- benchmark files ---

TOKENS = [
    "= ", "[", "]", "[[", "]]", "{", "}", '"', "'", ",", "\n", "#", "nan", "inf", "-1", "1e400", "9" * 30, "true",
    "false", '""', "[]", "{}", "1979-05-27T07:32:00Z", '"\\u0000"', '"*"', '"["', "\ufeff", "\x00", "[train]",
    "[set.lsh]", "[backbones]", "[on.\"digits.small\"]", "[on.\"digits.small\".train]", "[quick]", "a.b.c = 1",
    "epochs = 0", "bits = [[8]]", "seeds = [-1]", "methods = []", "dataset = []", 'name = "A B"', 'name = ""',
    "[" * 500, 'x = "' + "y" * 9000 + '"', "\udc80", "\r",
]  # fmt: skip
SMALL = """name = "x"
title = "t"
dataset = ["digits.small"]
methods = ["lsh", "tanh+dhn"]
baselines = ["itq"]
controls = ["chance"]
bits = [8, 16]
seeds = [0, 1]
metrics = ["map@all", "p@h2"]
budget = "equal"
[backbones]
shallow = "pixels"
deep = "tiny"
[train]
backbone = "full"
epochs = 2
batch = 64
lr = 3e-3
schedule = "cosine"
select = ""
[on."digits.small".train]
epochs = 3
[set.tiny]
width = 8
[quick]
epochs = 1
bits = [8]
"""
LEAVES = [
    "-1", "0", "1", "2.5", "nan", "inf", "1e400", "9" * 30, "true", '""', '"x"', '"*"', '"["', '"lsh"', "[]", "{}",
    "[1]", '["x"]', "[[1]]", "[true]", "[1.5]", "[nan]", "{a = 1}", "{a = {b = [{}]}}", "[{}]", "1979-05-27",
    "07:32:00", '"\\u0000"', '"\\n"', '["lsh", "lsh"]', "[8, 8]", "[-5]", '["digits.small", "digits.small"]',
    '"digits.small"', '["=1+1"]', '"' + "z" * 5000 + '"',
]  # fmt: skip


def mutated(text, dice):
    """A benchmark file with values replaced, lines lost, doubled, moved, or letters changed."""
    lines = text.splitlines()
    for _ in range(dice.choice([1, 1, 2, 4])):
        at = dice.randrange(len(lines)) if lines else 0
        act = dice.randrange(7)
        if not lines or act == 0:
            lines.insert(at, dice.choice(TOKENS))
        elif act in (1, 2) and "=" in lines[at]:
            lines[at] = f"{lines[at].partition('=')[0]}= {dice.choice(LEAVES)}"
        elif act == 3:
            del lines[at]
        elif act == 4:
            lines.insert(dice.randrange(len(lines)), lines[at])
        elif act == 5 and lines[at]:
            place = dice.randrange(len(lines[at]))
            lines[at] = lines[at][:place] + dice.choice([*TOKENS[:14], "x", "é"]) + lines[at][place + 1 :]
        else:
            lines[at] = lines[at].replace(dice.choice("aeiost01"), dice.choice("xyz-_.9"))
    return "\n".join(lines)


def of_digits(text):
    """Only small datasets are looked at: nothing is downloaded, and a case takes a fraction of a second."""
    return (
        text.replace("digits.standard", "digits.small").replace("[set.folder]", "[set.tiny]").replace("size = 32", "")
    )


FILES_TO_CHANGE = [SMALL, SMALL, of_digits(shipped()["digits"].read_text())]
OTHERS = [path.read_text() for name, path in shipped().items() if name != "digits"]
assert len(OTHERS) > 20


def test_benchmark_files(tally, whole, tame):
    """Benchmark files with values, lines and letters changed: exit codes 0 to 3 and one line, never a traceback"""

    def act(number):
        dice = random.Random(number)
        text = mutated(dice.choice(FILES_TO_CHANGE), dice)
        (tame / "y.toml").write_bytes(text.encode("utf-8", "surrogateescape" if dice.random() < 0.5 else "replace"))
        quick = dice.choice([[], [], ["--quick"]])
        return wrong_with(
            ["bench", "y.toml", "--dry-run", *quick, "--methods", dice.choice(["lsh", "tanh+dhn", "csq"])]
        ) or (wrong_with(["bench", "y.toml", "--dry-run", *quick, "--no-baselines"]) if number % 3 == 0 else "")

    for number in range(600 if whole else 30):
        wrong = act(number)
        tally.case(wrong and f"file {number}: {wrong}")


def test_shipped_files_read(tally, whole, tame):
    """The shipped benchmark files, changed likewise, read or refused"""
    from hashzoo.bench.benchmark_file import read
    from hashzoo.errors import HashzooError

    for number in range(600 if whole else 60):
        dice = random.Random(number)
        text = mutated(dice.choice(OTHERS), dice)
        (tame / "y.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
        try:
            read("y.toml")
            tally.case()
        except HashzooError as error:
            tally.case("" if "\n" not in str(error) and error.exit_code == 2 else f"file {number}: {error!r}")
        except Exception as error:
            tally.case(f"file {number}: {type(error).__name__}: {error}")


def test_nothing_was_written_elsewhere(tame):
    before = set(os.listdir(tame))  # noqa: PTH208 - names alone
    assert wrong_with(["bench", "digits", "--quick", "--dry-run", "--results", "r"]) == ""
    assert set(os.listdir(tame)) == before  # noqa: PTH208
