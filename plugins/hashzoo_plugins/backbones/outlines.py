"""What backbones download, from their libraries' own lists; nothing is downloaded to find out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hashzoo import Download, Outline

SHAPE = (3, 224, 224)  # these networks resize images, so that their features do not depend on the dataset


def of_weights(value: Any, downloads: tuple[Download, ...]) -> Outline:
    """The outline of a network with the option ``weights``: "default", "random" or a file."""
    if value == "default":
        return Outline(shape=SHAPE, downloads=downloads)
    missing = value != "random" and not Path(str(value)).expanduser().is_file()
    return Outline(shape=SHAPE, missing=f"weights file not found: {value}" if missing else "")


def torchvision(name: str, values: Mapping[str, Any]) -> Outline:
    """The weights that torchvision downloads into the cache folder of torch.hub."""
    value = values.get("weights", "default")
    return of_weights(value, _torchvision_files(name.partition("/")[2]) if value == "default" else ())


def _torchvision_files(name: str) -> tuple[Download, ...]:
    import torch
    from torchvision import models

    best: Any = getattr(models.get_model_weights(name), "DEFAULT", None)
    if best is None or (Path(torch.hub.get_dir()) / "checkpoints" / best.url.rpartition("/")[2]).is_file():
        return ()
    megabytes = best.meta.get("_file_size")
    return (Download(best.url, round(megabytes * 2**20) if megabytes else None),)


def timm(name: str, values: Mapping[str, Any]) -> Outline:
    """The weights that timm downloads, by the client of the Hugging Face Hub or from an address."""
    value = values.get("weights", "default")
    known = of_weights(value, _timm_files(name.partition("/")[2]) if value == "default" else ())
    return replace(known, libraries=("timm",))


def _timm_files(name: str) -> tuple[Download, ...]:
    from huggingface_hub import try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    config: Any = get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        return ()
    if not config.hf_hub_id:
        return (Download(config.url),)
    files = ("model.safetensors", "pytorch_model.bin")
    if any(isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in files):
        return ()
    return (Download(f"https://huggingface.co/{config.hf_hub_id}"),)


def dual_stream(name: str, values: Mapping[str, Any]) -> Outline:
    """What both networks download."""
    known = {"torchvision": torchvision, "timm": timm}
    parts = [
        known[family](values[part], {"weights": values[f"{part}_weights"]})
        for part in ("local", "context")
        if (family := str(values[part]).partition("/")[0]) in known
    ]
    missing = [part.missing for part in parts if part.missing]
    return Outline(
        shape=SHAPE, downloads=tuple(f for part in parts for f in part.downloads), missing="; ".join(missing)
    )
