"""Folders of saved priors by name: a local folder, or a model of the Hugging Face hub, downloaded to its cache."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["local_folder"]

FILES = ["model.safetensors", "card.json", "config.json", "README.md"]
"""All that is downloaded: no code, nothing pickled."""


def local_folder(name: str | os.PathLike[str]) -> Path:
    """The folder of `name`; raises `ValueError` where there is none and nothing can be downloaded."""
    folder = Path(name)
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(name)):
        raise ValueError(f"{name} is no folder; expected that of a saved prior, or a model of the hub as owner/name")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ValueError(
            f"{name} is no folder; to download it from the Hugging Face hub, pip install 'autovae[hub]'"
        ) from None
    try:
        return Path(snapshot_download(str(name), allow_patterns=FILES))
    except Exception as error:  # the hub's errors, and those of the network below it, have no common base
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} is no folder and could not be downloaded from the Hugging Face hub: {reason}"
        ) from None
