"""Which files the globs name: names are read again when a directory changes, or when nobody could tell."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.discover import LOOKS_MAX, Discovery
from agent.osio import System
from agent.settings import WatchSettings

LONG_AGO_S = 1_700_000_000


class Counted(System):
    """The real system, counting how often directories are read."""

    def __init__(self) -> None:
        self.reads: Counter[str] = Counter()

    def entries(self, directory: str) -> Iterator[os.DirEntry[str]]:
        self.reads[directory] += 1
        return super().entries(directory)


@pytest.fixture
def system() -> Counted:
    return Counted()


def discovery(system: System, folder: Path, name: str = "*.jsonl") -> Discovery:
    return Discovery(system, [WatchSettings(gateway="web", paths=(folder / name,))])


def names(found: Discovery) -> list[str]:
    files, troubles = found.look()
    assert not troubles
    return sorted(Path(each.path).name for each in files.values())


def settle(folder: Path) -> None:
    """As if nothing had happened in it for long."""
    os.utime(folder, (LONG_AGO_S, LONG_AGO_S))


def test_a_settled_directory_is_read_once_and_its_files_are_looked_at_each_time(tmp_path: Path, system: Counted) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"1\n")
    settle(tmp_path)
    found = discovery(system, tmp_path)
    assert names(found) == ["a.jsonl"]
    (tmp_path / "a.jsonl").write_bytes(b"12345\n")
    assert [each.size for each in found.look()[0].values()] == [6]
    assert system.reads[str(tmp_path)] == 1


def test_a_new_a_renamed_and_a_removed_name_are_seen_at_the_next_look(tmp_path: Path, system: Counted) -> None:
    (tmp_path / "a.jsonl").touch()
    settle(tmp_path)
    found = discovery(system, tmp_path)
    assert names(found) == ["a.jsonl"]
    (tmp_path / "b.jsonl").touch()
    assert names(found) == ["a.jsonl", "b.jsonl"]
    (tmp_path / "a.jsonl").rename(tmp_path / "c.jsonl")
    assert names(found) == ["b.jsonl", "c.jsonl"]
    (tmp_path / "b.jsonl").unlink()
    assert names(found) == ["c.jsonl"]


def test_a_directory_that_changed_just_now_is_read_again_whatever_its_time(tmp_path: Path, system: Counted) -> None:
    found = discovery(system, tmp_path)
    for _ in range(3):
        found.look()
    assert system.reads[str(tmp_path)] == 3


def test_names_are_read_now_and_then_though_the_directory_tells_no_change(tmp_path: Path, system: Counted) -> None:
    settle(tmp_path)
    found = discovery(system, tmp_path)
    assert names(found) == []
    (tmp_path / "a.jsonl").touch()
    settle(tmp_path)  # as a file system that keeps no times would have it
    for _ in range(LOOKS_MAX + 1):
        seen = names(found)
    assert seen == ["a.jsonl"]


def test_a_link_leads_to_where_it_points_now(tmp_path: Path, system: Counted) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(name.encode())
    (folder / "web.jsonl").symlink_to(tmp_path / "one")
    settle(folder)
    found = discovery(system, folder)
    first = next(iter(found.look()[0]))
    (tmp_path / "one").unlink()
    (tmp_path / "one").symlink_to(tmp_path / "two")
    second = next(iter(found.look()[0]))
    assert first != second
    assert second[1] == (tmp_path / "two").stat().st_ino


class Racing(System):
    """A file gets another name between the reading of its directory and the look at it."""

    def __init__(self, old: Path, new: Path) -> None:
        self.old, self.new = old, new

    def stat(self, path: str) -> os.stat_result:
        if path == str(self.old) and self.old.exists():
            self.old.rename(self.new)
        return super().stat(path)


def test_a_file_renamed_between_listing_and_look_is_found_at_the_next_one(tmp_path: Path) -> None:
    old, new = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    old.touch()
    inode = old.stat().st_ino
    found = discovery(Racing(old, new), tmp_path)
    assert names(found) == []
    assert [(each.path, each.inode) for each in found.look()[0].values()] == [(str(new), inode)]


def test_a_file_that_cannot_be_looked_at_is_told_and_not_taken_for_gone(tmp_path: Path) -> None:
    class Failing(System):
        def stat(self, path: str) -> os.stat_result:
            if path.endswith(".jsonl"):
                raise OSError(5, "Input/output error", path)
            return super().stat(path)

    (tmp_path / "a.jsonl").touch()
    files, troubles = discovery(Failing(), tmp_path).look()
    assert not files
    assert [(trouble.path, trouble.reason) for trouble in troubles] == [(str(tmp_path / "a.jsonl"), "Input/output error")]


class Closed(System):
    """A directory that cannot be listed."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)

    def entries(self, directory: str) -> Iterator[os.DirEntry[str]]:
        if directory == self.directory:
            raise PermissionError(13, "Permission denied", directory)
        return super().entries(directory)


@pytest.mark.parametrize("glob", ["logs/*/*.jsonl", "logs/**/*.jsonl", "l*/w*/web.jsonl"])
def test_a_directory_that_cannot_be_listed_is_told_and_its_files_are_not_taken_for_gone(tmp_path: Path, glob: str) -> None:
    folder = tmp_path / "logs" / "web"
    folder.mkdir(parents=True)
    (folder / "web.jsonl").touch()
    assert names(discovery(System(), tmp_path, glob)) == ["web.jsonl"]
    files, troubles = discovery(Closed(tmp_path / "logs"), tmp_path, glob).look()
    assert not files
    assert {(trouble.path, trouble.reason) for trouble in troubles} == {(str(tmp_path / "logs"), "Permission denied")}


def test_a_link_that_leads_nowhere_hides_nothing_beside_it(tmp_path: Path, system: Counted) -> None:
    for name in ("a", "z"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "web.jsonl").touch()
    (tmp_path / "odd").symlink_to("odd")
    for glob in ("*/web.jsonl", "**/web.jsonl"):
        files, troubles = discovery(system, tmp_path, glob).look()
        assert len(files) == 2
        assert {trouble.path for trouble in troubles} == {str(tmp_path / "odd")}


def test_links_that_lead_in_circles_are_followed_once(tmp_path: Path, system: Counted) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).symlink_to(".")
    (tmp_path / "four").mkdir()
    (tmp_path / "four" / "five").symlink_to(tmp_path)
    (tmp_path / "four" / "web.jsonl").touch()
    assert names(discovery(system, tmp_path, "**/*.jsonl")) == ["web.jsonl"]
    assert sum(system.reads.values()) <= 4


@pytest.mark.parametrize(
    ("glob", "wanted"),
    [
        ("a/b/x.jsonl", ["a/b/x.jsonl"]),
        ("*/b/*.jsonl", ["a/b/x.jsonl", "c/b/x.jsonl"]),
        ("[ab]/*/x.jsonl", ["a/.d/x.jsonl", "a/b/x.jsonl"]),
        ("**/x.jsonl", ["a/.d/x.jsonl", "a/b/x.jsonl", "c/b/x.jsonl", "x.jsonl"]),
        ("a/**/x.jsonl", ["a/.d/x.jsonl", "a/b/x.jsonl"]),
        ("**/b/**/x.jsonl", ["a/b/x.jsonl", "c/b/x.jsonl"]),
        ("?/none/x.jsonl", []),
        ("none/*/x.jsonl", []),
    ],
)
def test_what_globs_name(tmp_path: Path, system: Counted, glob: str, wanted: list[str]) -> None:
    for name in ("a/b/x.jsonl", "a/.d/x.jsonl", "c/b/x.jsonl", "x.jsonl", "a/b/y.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files, troubles = discovery(system, tmp_path, glob).look()
    assert not troubles
    assert sorted(str(Path(each.path).relative_to(tmp_path)) for each in files.values()) == wanted
