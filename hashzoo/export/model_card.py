"""The model card of a trained method: what it is, how it was trained, its scores, and how to load it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hashzoo._version import __version__
from hashzoo.bench.benchmark_file import VECTOR_BACKBONE
from hashzoo.errors import EnvironmentFailure
from hashzoo.registry.zoo import load_plugins
from hashzoo.results import store
from hashzoo.results.cell import Cell
from hashzoo.results.significance import bootstrap_intervals
from hashzoo.retrieval.encoder import TrainedEncoder

UNKNOWN = "unknown"  # the identifier of the hub for a license that is not stated


def model_card(
    encoder: TrainedEncoder, repository: str, license_name: str = "", choice: Mapping[str, Any] | None = None
) -> str:
    """The card as Markdown, with the metadata that the hub reads.

    Args:
        encoder: The trained method.
        repository: ``owner/name``, from which the card says how to load the method.
        license_name: The license as an identifier of the hub; empty if it is not known.
        choice: What ``hashzoo quantize`` measured, if it chose the method.
    """
    cell, vectors = encoder.trained.cell, encoder.trained.cell.identity.backbone == VECTOR_BACKBONE
    identity = cell.identity
    card = load_plugins(encoder.plugins).method(identity.method).card
    parts = [
        f"# {repository.split('/')[-1]}",
        f"A hash of {'vectors' if vectors else 'images'} into **{identity.bits} bits** by "
        f"`{identity.method}`{f' ({card.paper})' if card.paper else ''}, trained and measured with hashzoo "
        f"{__version__}. `hashzoo cite {identity.method}` prints the publications.",
        "## Use",
        _usage(repository, vectors, encoder),
        "## Training",
        _training(cell, encoder),
        "## Scores",
        _scores(cell, encoder.cell, choice),
        "## Licenses",
        _licenses(cell, license_name),
        "## Limits",
        _limits(cell),
    ]
    return f"---\n{_metadata(cell, license_name, vectors, repository)}\n---\n\n" + "\n\n".join(parts) + "\n"


def _metadata(cell: Cell, license_name: str, vectors: bool, repository: str) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    identity = cell.identity
    results = [
        EvalResult(
            task_type="feature-extraction" if vectors else "image-feature-extraction",
            dataset_type=identity.dataset,
            dataset_name=identity.dataset,
            metric_type=name,
            metric_value=round(value, 6),
        )
        for name, value in _finite(cell).items()
    ]
    data = ModelCardData(
        license=license_name or UNKNOWN,
        library_name="hashzoo",
        pipeline_tag="feature-extraction" if vectors else "image-feature-extraction",
        tags=["hashzoo", "learning-to-hash", "binary-codes", "retrieval", identity.method],
        model_name=repository.split("/")[-1] if results else None,
        eval_results=results or None,
    )
    return data.to_yaml()


def _usage(repository: str, vectors: bool, encoder: TrainedEncoder) -> str:
    flags = "".join(f" --plugin {Path(name).name}" for name in encoder.plugins)
    given, loader = ("vectors.npy", "load_vector_encoder") if vectors else ("photos/", "load_encoder")
    source = f"--vectors {given}" if vectors else given
    plugin = f"The plugin {Path(encoder.plugins[0]).name} is not in this repository.\n\n" if encoder.plugins else ""
    return (
        f"{plugin}```bash\npip install hashzoo=={__version__}\n"
        f"hashzoo encode hf://{repository} {given} -o codes.npz{flags}\n"
        f"hashzoo index build hf://{repository} {source} -o my.index{flags}\n```\n\n"
        f'```python\nimport hashzoo\n\nencoder = hashzoo.{loader}("hf://{repository}")\n'
        f'codes = encoder.encode("{given}")\n```'
    )


def _training(cell: Cell, encoder: TrainedEncoder) -> str:
    identity, budget = cell.identity, cell.identity.budget
    rows = {
        "method": f"`{identity.method}`",
        "hyperparameters": _pairs(identity.hyperparameters),
        "backbone": f"`{identity.backbone}` ({budget.get('backbone', '')}) {_pairs(identity.backbone_options)}".strip(),
        "dataset": f"`{identity.dataset}`, {cell.facts.get('train', '?'):,} items to learn from",
        "split": f"`{cell.facts.get('split', '')}` (digest)",
        "budget": _pairs(budget),
        "seed": str(identity.seed),
        "preprocessing": _pairs(encoder.describe()["preprocessing"]),
        "command": f"`{store_command(cell)}`",
        "code": f"hashzoo {cell.plugin_version}, digest `{identity.code}`; key of the cell `{identity.key}`",
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {_cell_text(text)} |" for name, text in rows.items() if text)


def store_command(cell: Cell) -> str:
    """The command that measured a cell, without paths that are not relative."""
    from hashzoo.results.bundle import command_without_paths

    return command_without_paths(str(cell.provenance.get("command", "")))


def _scores(cell: Cell, path: Path, choice: Mapping[str, Any] | None) -> str:
    facts = cell.facts
    lines = [
        f"{facts.get('queries', '?'):,} queries search {facts.get('database', '?'):,} items of "
        f"`{cell.identity.dataset}`; ties are counted in expectation over their orders. Intervals are at 95 % over "
        "queries, for this one training.",
        "",
        "| metric | score | interval |",
        "|---|---|---|",
    ]
    intervals = _intervals(path)
    for name, value in _finite(cell).items():
        low_high = intervals.get(name)
        lines.append(f"| {name} | {value:.4f} | {'' if low_high is None else '{:.4f} to {:.4f}'.format(*low_high)} |")
    if choice:
        lines += ["", f"Chosen by `hashzoo quantize`: {_cell_text(str(choice.get('advice', '')))}."]
    return "\n".join(lines)


def _intervals(path: Path) -> dict[str, tuple[float, float]]:
    """Intervals of metrics whose scores of single queries were kept."""
    try:
        scores = {name: value[np.isfinite(value)] for name, value in store.arrays(path).items() if value.ndim == 1}
    except EnvironmentFailure:  # results are passed on without them
        return {}
    found = {name: bootstrap_intervals(value[None])[0] for name, value in scores.items() if len(value) > 1}
    return {name: (float(low), float(high)) for name, (low, high) in found.items()}


def _licenses(cell: Cell, license_name: str) -> str:
    identity = cell.identity
    own = license_name or "not stated; ask the owner"
    pretrained = any(name.endswith("weights") for name in identity.backbone_options)
    weights = _license_of_weights(identity.backbone) if pretrained else "no pretrained weights"
    return (
        f"- This method: {own}.\n- Backbone `{identity.backbone}`: {weights}.\n"
        f"- Data `{identity.dataset}`: hashzoo does not record the licenses of datasets; see its publisher."
    )


def _license_of_weights(backbone: str) -> str:
    """The license of pretrained weights, where a library states it."""
    family, _, name = backbone.partition("/")
    if family == "timm" and name:
        from timm.models import get_pretrained_cfg

        found = get_pretrained_cfg(name, allow_unregistered=True)
        return (found.license if found is not None and found.license else "not stated") + ", by timm"
    return "hashzoo does not record the license of its weights; see their publisher"


def _limits(cell: Cell) -> str:
    texts = [
        f"- It loads with the code of `{cell.identity.method}` in hashzoo {cell.plugin_version}; a version in which "
        "that code has changed refuses it.",
        "- Scores hold for data like those of the split. One training was measured.",
    ]
    if cell.contaminated:
        texts.append("- Training images are in the database, and the method learned their codes from labels.")
    return "\n".join(texts)


def _finite(cell: Cell) -> dict[str, float]:
    return {name: float(value) for name, value in cell.metrics.items() if np.isfinite(value)}


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items() if value not in (None, ""))


def _cell_text(text: str) -> str:
    """A text that cannot end a cell of a table, or be read as HTML."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
