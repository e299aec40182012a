"""Files and trees that are there whole or not at all."""

from pathlib import Path

import pytest

from neuro_local import durable


def test_file_replaces_the_old_one_and_is_its_owners_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")

    durable.write_whole(tmp_path / "file", "new")

    assert (tmp_path / "file").read_text() == "new"
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        durable.write_whole(tmp_path / "file", "new")

    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_tree_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, target = tmp_path / "tree", tmp_path / "there" / "target"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").write_text("text")
    target.parent.mkdir()

    def refused(folder: Path) -> None:
        assert folder == tree and not target.exists()
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(durable, "_sync_file_system", refused)
        with pytest.raises(OSError, match="Input/output"):
            durable.move_whole(tree, target)
    assert tree.exists() and not target.exists()

    durable.move_whole(tree, target)

    assert (target / "deep" / "file").read_text() == "text"
    assert not tree.exists()
