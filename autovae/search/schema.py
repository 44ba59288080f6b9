"""`python -m autovae.search.schema` writes search_spaces/schema.json, for editors that validate TOML."""

from __future__ import annotations

import json
from pathlib import Path

from autovae.files import write_text
from autovae.search.space import schema

if __name__ == "__main__":
    print(write_text(Path("search_spaces/schema.json"), json.dumps(schema(), indent=1) + "\n"))
