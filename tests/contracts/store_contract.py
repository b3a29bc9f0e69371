"""What every store promises (`storage.object_store.Far` over a file system of fsspec): near folders follow a far one.

`machines` gives near folders of one URI, each on a disk of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.storage import object_store
from orchestrator.storage.object_store import Far

NewMachine = Callable[[str], Path]


def _filled(uri: str, use: NewMachine, *names: str) -> Far:
    one = Far(uri, use(uri))
    one.folder.mkdir(parents=True)
    for name in names:
        (one.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (one.folder / name).write_text(name)
    one.push(names)
    return one


def check_near_folders_follow_the_far_one(uri: str, use: NewMachine) -> None:
    """The far side is the truth, but what nobody changed there keeps what was written near."""
    one = _filled(uri, use, "a", "b", "c")
    assert not one.changed()
    other = Far(uri, use(uri))
    other.pull()
    assert [(other.folder / n).read_text() for n in ("a", "b", "c")] == ["a", "b", "c"]
    (other.folder / "a").write_text("only here")
    (other.folder / "b").write_text("also here")
    (other.folder / "new").write_text("not there yet")
    (one.folder / "b").write_text("changed far away")
    one.push(["b"])
    one.remove(["c"])
    other.pull()
    assert (other.folder / "a").read_text() == "only here", "nobody changed it there: what was written here stays"
    assert (other.folder / "b").read_text() == "changed far away", "the far side is the truth"
    assert not (other.folder / "c").exists()
    assert set(other.changed()) == {"a", "new"}
    again = Far(uri, other.folder)
    again.pull()
    assert (again.folder / "a").read_text() == "only here", "a new process knows what the old one knew"


def check_a_file_that_goes_away_meanwhile_is_left_out(uri: str, use: NewMachine) -> None:
    """Between being seen, counted and uploaded: a script's empty log goes when the script ends."""
    one = _filled(uri, use, "kept")
    store = one._store

    class Late:
        """The store, before whose uploads `late` goes away."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        def put_file(self, near: str, far: str) -> None:
            (one.folder / "late").unlink(missing_ok=True)
            store.put_file(near, far)

    one._store = Late()
    for order in (["late", "kept"], ["kept", "late"], ["never", "kept"]):
        (one.folder / "late").write_text("for a moment")
        (one.folder / "kept").write_text(f"before {order}")
        one.push(order)
        assert one.text("kept") == f"before {order}"
        assert one.changed() == []
    assert one.names() == ["kept"]


def check_listings_tell_what_is_there(uri: str, use: NewMachine) -> None:
    """Files and folders of one level, sizes in bytes; a shallow pull leaves what is below alone."""
    one = _filled(uri, use, "top", "below/x", "below/deeper/y")
    assert sorted(one.names()) == ["top"]
    assert one.sizes() == {"top": 3}
    assert one.folders() == ["below"]
    other = Far(uri, use(uri))
    assert other.pull(deep=False) == {"top"}
    assert not (other.folder / "below").exists()
    assert other.pull() == {"top", "below/x", "below/deeper/y"}
    assert (other.folder / "below" / "deeper" / "y").read_text() == "below/deeper/y"


def check_what_is_missing_is_no_error(uri: str, use: NewMachine) -> None:
    """A file that is not there has no text, no age, is not fetched and may be removed; an empty place is empty."""
    empty = Far(uri, use(uri))
    assert empty.pull() == set()
    assert (empty.names(), empty.folders(), empty.sizes()) == ([], [], {})
    assert (empty.text("nobody"), empty.age("nobody"), empty.exists("nobody")) == ("", None, False)
    empty.fetch(["nobody"])
    empty.push(["nobody"])
    empty.remove(["nobody"])
    empty.clear()
    assert not empty.exists("nobody")


def check_a_file_is_written_read_and_removed(uri: str, use: NewMachine) -> None:
    """Bytes come back as they were put; a newer upload replaces an older one whole."""
    there = Far(uri, use(uri))
    there.write("note.json", "long enough to be cut short")
    there.write("note.json", "short")
    assert there.text("note.json") == "short"
    assert -5 < (there.age("note.json") or 0.0) < 60, "by the clocks of two machines that nearly agree"
    there.clear()
    assert not there.exists("note.json")
    assert object_store.probe(uri) == f"{uri} stored a file and returned 'geosweep'"


def check_a_trial_begins_as_another(uri: str, use: NewMachine) -> None:
    """The log and the newest checkpoint are copied, once: what a trial has of its own is not written over."""
    parent = _filled(f"{uri}/parent", use, "metrics.jsonl", "0000000010.pt", "0000000020.pt", "result.json")
    child = Far(f"{uri}/child", use(f"{uri}/child"))
    child.begin_as(parent)
    assert sorted(child.names()) == ["0000000020.pt", "metrics.jsonl"]
    child.pull()
    assert (child.folder / "0000000020.pt").read_text() == "0000000020.pt"
    (child.folder / "0000000030.pt").write_text("its own")
    child.push(["0000000030.pt"])
    (parent.folder / "0000000040.pt").write_text("later")
    parent.push(["0000000040.pt"])
    child.begin_as(parent)
    assert "0000000040.pt" not in child.names()


def check_a_far_file_is_level_only_once_it_was_uploaded(uri: str, use: NewMachine) -> None:
    """An upload that fails leaves the file among those that changed."""
    one = _filled(uri, use, "kept")
    (one.folder / "kept").write_text("changed")

    class Fails:
        def put_file(self, *paths: str) -> None:
            raise PermissionError("no")

    store, one._store = one._store, Fails()
    try:
        one.push(["kept"])
    except object_store.StoreError as error:
        assert uri in str(error)
    else:
        raise AssertionError("a failed upload was said to be one")
    one._store = store
    assert one.changed() == ["kept"]
    one.push(one.changed())
    assert one.text("kept") == "changed"
