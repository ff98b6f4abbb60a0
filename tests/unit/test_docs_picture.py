"""The recording in the README: one file that needs nothing else, made from a run in which a worker was killed."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "images" / "watch.svg"


def test_the_readmes_first_screen_shows_it():
    assert "](docs/images/watch.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")[:2500]


def test_it_is_small_and_stands_alone():
    text = PICTURE.read_text(encoding="utf-8")
    assert len(text.encode()) < 300_000
    tree = ET.fromstring(text)  # noqa: S314 - our own file
    names = {element.tag.rpartition("}")[2] for element in tree.iter()}
    assert names <= {"svg", "title", "style", "defs", "text", "tspan", "rect", "circle", "path", "g", "use"}
    links = {value for element in tree.iter() for name, value in element.attrib.items() if "href" in name}
    assert all(link.startswith("#") for link in links)
    assert not re.search(r"url\(|@import|@font-face", text)


def test_it_shows_the_kill_and_the_pick_up():
    rows = ["".join(row.itertext()) for row in ET.fromstring(PICTURE.read_text()).iter() if row.tag.endswith("text")]  # noqa: S314 - as above
    killed = {found[1] for row in rows if (found := re.search(r"kill -9 (\d+)$", row))}
    picked = {found[1] for row in rows if (found := re.search(r"picks up from \w+-(\d+) \(dead\) after", row))}
    assert len(picked) == 1
    assert picked <= killed  # which has the line as it was typed, too
