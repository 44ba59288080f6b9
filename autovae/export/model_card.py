"""The readable card of a saved prior: README.md with the Hugging Face hub's header, and config.json.

A folder with model.safetensors, README.md and config.json can be uploaded (`hf upload NAME FOLDER`) and read
back by `PriorModule.from_pretrained(NAME)`, which reads card.json only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autovae.spec import VAESpec

__all__ = ["hub_config", "readme"]


def _table(first: str, rows: Mapping[str, Any]) -> list[str]:
    return [f"| {first} | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items()), ""]


def readme(card: Mapping[str, Any]) -> str:
    """README.md of a card: a header in YAML, what it is, how it is used, its scores, where it is from."""
    spec, data = VAESpec.from_dict(card["spec"]), card["data"]
    shape = " x ".join(str(size) for size in card["domain"]["shape"])
    image = len(card["domain"]["shape"]) >= 2
    task = ["pipeline_tag: unconditional-image-generation"] if image else []
    header = [
        "---",
        "library_name: autovae",
        *task,
        "tags:",
        "- autovae",
        "- variational-autoencoder",
        "- prior",
        "---",
    ]
    lines = [
        *header,
        "",
        f"# AutoVAE prior: {spec.belief}",
        "",
        f"A frozen generator of {data['name']} ({shape}), trained by AutoVAE {card['versions'].get('autovae', '')}.",
        f"{spec.latent_dim} latents, hidden layers {list(spec.hidden)}, {spec.epochs} epochs, seed {spec.seed}.",
        "",
        "```python",
        "import autovae",
        "prior = autovae.load_prior('.')          # or PriorModule.from_pretrained('owner/name')",
        "x = prior.decode(prior.sample(64))",
        "```",
        "",
    ]
    if "study" in card:
        trial = f", trial {card['trial']}" if "trial" in card else ""
        lines += [f"From the study {card['study']}{trial}.", ""]
    if card.get("score"):
        lines += _table("score", card["score"])
    for name, source in card.get("sources", {}).items():
        if source.get("scores"):
            lines += [f"Source `{name}`:", "", *_table("score", source["scores"])]
    made = ", ".join(f"{name} {number}" for name, number in card["versions"].items())
    lines += [
        f"Data: {data['note']}. Licence of the data: {data['licence']}. Digest {data['digest'][:16]}.",
        "",
        f"Made with {made}. Weights: safetensors, SHA-256 {card['weights_sha256']}.",
        "",
    ]
    return "\n".join(lines)


def hub_config(card: Mapping[str, Any]) -> dict[str, Any]:
    """config.json, which the hub counts and shows."""
    return {"model_type": "autovae", "architectures": ["PriorModule"], "format": card["format"], "card": "card.json"}
