"""Writes the long descriptions of the installed Python packages as files: real text that nobody here wrote.

The same set of packages gives the same files, byte for byte.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageMetadata, distributions
from pathlib import Path


def write_package_descriptions(folder: Path) -> int:
    """Write one file per installed distribution that carries a long description; returns how many.

    Markdown becomes ``name.md``, everything else ``name.txt``. A file that is already the same is left alone, so that
    an index of the folder stays valid; descriptions of packages that are no longer installed are removed.

    Raises:
        OSError: the folder cannot be written.

    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptions = dict(sorted(filter(None, map(_described, distributions()))))
    for stale in (
        path for path in folder.iterdir() if path.suffix in {".md", ".txt"} and path.name not in descriptions
    ):
        stale.unlink()
    for name, text in descriptions.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    return len(descriptions)


def _described(distribution: Distribution) -> tuple[str, str] | None:
    metadata = distribution.metadata
    text = _long_description(metadata)
    name = re.sub(r"[-_.]+", "-", metadata["Name"] or "").lower()
    if not name or not re.fullmatch(r"[a-z0-9-]+", name) or not text:
        return None
    markdown = "markdown" in (metadata["Description-Content-Type"] or "").lower()
    return f"{name}{'.md' if markdown else '.txt'}", f"{text}\n"


def _long_description(metadata: PackageMetadata) -> str:
    values = metadata.json.get("description", "")
    text = (values if isinstance(values, str) else "\n".join(values)).replace("\r\n", "\n").strip()
    text = text.encode("utf-8", "replace").decode()
    return "" if text == "UNKNOWN" else text
