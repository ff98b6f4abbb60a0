"""The demo's corpus is what the installed packages say of themselves, the same each time."""

from pathlib import Path

from threadline_worker.agents.research.package_corpus import write_package_descriptions


def test_descriptions_are_written_once_and_stay_as_they_are(tmp_path: Path) -> None:
    count = write_package_descriptions(tmp_path)
    files = {path.name: (path.stat().st_mtime_ns, path.read_text()) for path in tmp_path.iterdir()}
    assert len(files) == count > 20
    assert "psycopg" in files["psycopg.txt"][1].lower()
    assert "httpx" in files["httpx.md"][1].lower()
    assert write_package_descriptions(tmp_path) == count
    assert {path.name: (path.stat().st_mtime_ns, path.read_text()) for path in tmp_path.iterdir()} == files


def test_descriptions_of_packages_that_have_gone_are_removed(tmp_path: Path) -> None:
    (tmp_path / "gone-package.md").write_text("old")
    write_package_descriptions(tmp_path)
    assert not (tmp_path / "gone-package.md").exists()
