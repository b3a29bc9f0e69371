"""Files that belong together are all new, or all as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.storage import whole


def test_an_interrupted_set_leaves_every_old_file(tmp_path: Path) -> None:
    old = {tmp_path / name: name for name in ("a", "b", "gone")}
    whole.write(old)
    new = {tmp_path / "a": "new", tmp_path / "c" / "d": "new", tmp_path / "b": tmp_path}
    with pytest.raises(TypeError):
        whole.write(new, outdated=[tmp_path / "gone"])  # type: ignore[arg-type]
    assert {path: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == old
    assert list((tmp_path / "c").iterdir()) == []


def test_what_is_no_longer_written_is_removed_last(tmp_path: Path) -> None:
    whole.write({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    whole.write({tmp_path / "a": b"3"}, outdated=[tmp_path / "a", tmp_path / "b"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"3"}


def test_links_modes_and_devices_stay(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o600)
    (tmp_path / "link").symlink_to("real")
    whole.write({tmp_path / "link": "new", Path("/dev/null"): "x"})
    assert ((tmp_path / "link").is_symlink(), (tmp_path / "real").read_text()) == (True, "new")
    assert (tmp_path / "real").stat().st_mode & 0o777 == 0o600
    assert Path("/dev/null").is_char_device()


def test_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError, match="taken"):
        whole.write({tmp_path / "taken": "x"})
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_an_error_names_the_file_and_not_its_temporary(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long") as caught:
        whole.write({tmp_path / ("x" * 300): "x"})
    assert Path(caught.value.filename).name == "x" * 300
