"""What of a user's folder goes to a cluster with a sweep: which files, no secret, the same bytes, nothing missing."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator import results
from orchestrator.definition import model, sweep_file
from orchestrator.kubernetes.fit import RenderError
from orchestrator.kubernetes.operator_rules import lint
from orchestrator.kubernetes.render import render
from orchestrator.protocol import seal
from orchestrator.remote import CODE
from orchestrator.storage.folder import find
from orchestrator.travel import arrival, code
from orchestrator.travel.archive import MANIFEST
from orchestrator.travel.errors import CannotTravel
from orchestrator.travel.files import traveling
from tests.orchestrator.sweep_files import sweep_text
from tests.verbs import Called

TASK = """from pathlib import Path

from tests.tasks import Fit
from own_helpers import SCALE


class Own(Fit):
    def __init__(self, *, table: str = "", **more):
        super().__init__(width=4)
        self.scale = SCALE

    def facts(self):
        return {"file": __file__, "table": Path(__file__).with_name("table.csv").read_text()}
"""


def git(folder: Path, *words: str) -> None:
    plain = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *words]
    subprocess.run(plain, check=True, capture_output=True)


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder with a task, in which the command is given; its modules are forgotten afterwards."""
    monkeypatch.setenv("GEOSWEEP_SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.delenv(CODE, raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "own_task.py").write_text(TASK)
    (folder / "own_helpers.py").write_text("SCALE = 2.0\n")
    (folder / "table.csv").write_text("1,2\n")
    (folder / "sweep.yaml").write_text(text())
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    monkeypatch.chdir(folder)
    yield folder
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def text(**more: Any) -> str:
    document = yaml.safe_load(sweep_text(trials=2, confirm=2))
    document["task"] = {"name": "own_task:Own", **more.pop("task", {})}
    return yaml.safe_dump({**document, **more})


def parcel(folder: Path, **options: Any) -> Any:
    file = folder / "sweep.yaml"
    return code.parcel(sweep_file.load(file), file, **options)


def names(found: Any) -> set[str]:
    with zipfile.ZipFile(found.archive) as opened:
        return set(opened.namelist()) - {MANIFEST}


def test_git_says_which_files(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    write(folder, a_dot_py="1", b_dot_log="2", c_dot_txt="3", sub__d_dot_py="4", sub__e_dot_log="5", kept_dot_log="6")
    write(folder, _dot_gitignore="*.log\n", build__x="7", venv__pyvenv_dot_cfg="", venv__lib_dot_py="")
    (folder / ".geosweepignore").write_text("build/\n!kept.log\nc.*\n")
    expected = {".gitignore", ".geosweepignore", "a.py", "sub/d.py"}
    assert set(traveling(folder)[0]) == expected
    git(folder, "init", "-q")
    assert set(traveling(folder)[0]) == expected
    git(folder, "add", "-f", "kept.log", "c.txt", "a.py")
    assert set(traveling(folder)[0]) == expected | {"kept.log"}  # tracked, so not ignored; c.txt is named by ours
    assert set(traveling(folder, [folder / "sub"])[0]) == {".gitignore", ".geosweepignore", "a.py", "kept.log"}
    assert set(traveling(folder / "sub")[0]) == {"d.py"}  # a part of a repository
    write(folder, inner__f_dot_py="8", inner__g_dot_log="9")
    git(folder / "inner", "init", "-q")
    assert "inner/f.py" in traveling(folder)[0]


def test_our_own_list_holds_below_its_folder_wherever_repositories_begin(tmp_path: Path) -> None:
    """Also where the sweep's folder is a part of a repository, and within a repository inside it."""
    folder = tmp_path / "repository" / "part"
    write(
        folder, a_dot_py="1", conf__private_dot_yaml="2", top_dot_txt="3", sub__mine_dot_txt="4", everywhere_dot_dat="5"
    )
    write(folder, lib__b_dot_py="6", lib__private_dot_yaml="7")
    (folder / ".geosweepignore").write_text("conf/private.yaml\n/top.txt\nlib/private.yaml\n")
    (folder / "sub" / ".geosweepignore").write_text("mine.txt\n")
    (folder.parent / ".geosweepignore").write_text("/part/*.dat\n")
    own = {".geosweepignore", "sub/.geosweepignore", "a.py", "lib/b.py"}
    assert set(traveling(folder)[0]) == own | {"everywhere.dat"}  # nothing says that the folder above is of one piece
    git(folder / "lib", "init", "-q")
    git(folder.parent, "init", "-q")
    assert set(traveling(folder)[0]) == own
    write(folder, gone__x="8")
    git(folder.parent, "add", "part/gone")
    (folder / "gone" / "x").unlink()
    (folder / "gone").rmdir()
    (folder / "gone").write_text("a file now")
    assert set(traveling(folder)[0]) == own | {"gone"}


def test_what_sweeps_and_tools_keep_does_not_travel(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    write(folder, a_dot_py="", runs__fit_1__resolved_dot_json="{}", runs__fit_1__trials__t__result_dot_json="{}")
    write(folder, mlruns__0__meta_dot_yaml="", mlflow_dot_db="", node_modules__x_dot_js="")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "a.pyc").write_text("")
    assert set(traveling(folder)[0]) == {"a.py"}


def test_a_key_in_a_file_is_refused_by_its_place(project: Path) -> None:
    (project / "settings.py").write_text(f"A = 1\nTOKEN = '{'ghp_' + 'a' * 36}'\n")
    with pytest.raises(CannotTravel, match=r"^settings.py:2: this looks like a GitHub token") as caught:
        parcel(project)
    assert "ghp_" not in str(caught.value)
    hook = f"https://hooks.slack.com/services/T{'0' * 9}/B{'0' * 9}/{'x' * 24}"
    (project / "settings.py").write_text("A = 1\n")
    (project / "sweep.yaml").write_text(text(notify={"done": hook}))
    with zipfile.ZipFile(parcel(project).archive) as opened:
        assert "hooks.slack.com" not in opened.read("sweep.yaml").decode(), "the driver here sends to it"
    (project / "settings.py").write_text(f"HOOK = '{hook}'\n")
    with pytest.raises(CannotTravel, match=r"^settings.py:1: this looks like a webhook"):
        parcel(project)


@pytest.mark.slow
def test_links(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("not mine")
    (project / "sub").mkdir()
    (project / "sub" / "x.py").write_text("1")
    (project / "again.csv").symlink_to("table.csv")
    (project / "folder").symlink_to("sub")
    (project / "gone").symlink_to("nothing")
    found = parcel(project)
    assert {"again.csv", "folder/x.py", "sub/x.py"} <= names(found)
    assert "gone" not in names(found)
    (project / ".env").write_text("A=1")
    (project / "settings").symlink_to(".env")
    with pytest.raises(CannotTravel, match=r"settings is a link to .env, which is not uploaded"):
        parcel(project)
    (project / "settings").unlink()
    (project / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotTravel, match=r"out is a link to .*elsewhere, outside"):
        parcel(project)
    (project / "out").unlink()
    (project / "itself").symlink_to("itself")
    with pytest.raises(CannotTravel, match="itself is a link that leads to itself"):
        parcel(project)
    (project / "itself").unlink()
    (project / "sub" / "up").symlink_to("..")
    with pytest.raises(CannotTravel, match="sub/up is a link to a folder that contains it"):
        parcel(project)
    (project / ".geosweepignore").write_text("up\n")
    assert parcel(project) is not None


def test_the_same_content_has_the_same_bytes_and_the_seals_hashes(project: Path, tmp_path: Path) -> None:
    (project / "train.sh").write_text("true")
    (project / "train.sh").chmod(0o755)
    one = parcel(project)
    kept = one.archive.read_bytes()
    one.archive.unlink()
    for path in project.iterdir():
        os.utime(path, (1, 1))
    two = parcel(project)
    assert (two.digest, two.archive.read_bytes()) == (one.digest, kept)
    assert two.archive.name == f"code-{two.digest}.zip"
    (project / "table.csv").write_text("1,3\n")
    assert parcel(project).digest != one.digest
    spec = sweep_file.load(project / "sweep.yaml")
    sealed = seal.code_of(spec).files
    place, _ = arrival.unpack(two.archive, tmp_path / "unpacked")
    assert os.access(place / "train.sh", os.X_OK)
    for name in ("own_task.py", "own_helpers.py", "tests/tasks.py"):
        assert sealed[name] == hashlib.sha256((place / name).read_bytes()).hexdigest()


def test_nothing_travels_for_registered_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"
    assert code.parcel(sweep_file.load(file), file) is None


def test_modules_from_elsewhere_travel_by_themselves(project: Path) -> None:
    found = parcel(project)
    assert names(found) == {
        "own_task.py", "own_helpers.py", "table.csv", "sweep.yaml", "tests/__init__.py", "tests/tasks.py"
    }  # fmt: skip
    assert "own_task" in arrival.needs(sweep_file.load(project / "sweep.yaml"))[0]
    write(project, tests__tasks_dot_py="another")
    with pytest.raises(CannotTravel, match=r"tests/tasks.py is another file"):
        parcel(project)


def test_the_current_folder_travels_when_modules_are_found_there(project: Path) -> None:
    (project / "sweeps").mkdir()
    (project / "sweeps" / "sweep.yaml").write_text(text())
    found = parcel(project / "sweeps")
    assert found.sweep == "sweeps/sweep.yaml"
    assert {"own_task.py", "table.csv"} <= names(found)


def test_a_src_layout_keeps_its_places(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "src" / "own_pkg").mkdir(parents=True)
    (project / "src" / "own_pkg" / "__init__.py").write_text("")
    (project / "src" / "own_pkg" / "task.py").write_text(TASK)
    monkeypatch.setattr(sys, "path", [*sys.path, str(project / "src")])
    (project / "sweep.yaml").write_text(text().replace("own_task:Own", "own_pkg.task:Own"))
    found = parcel(project)
    assert found.paths == ("src",)
    assert "src/own_pkg/task.py" in names(found)
    assert "own_pkg/task.py" not in names(found)


def test_what_would_be_missing_is_said_before_the_start(project: Path) -> None:
    git(project, "init", "-q")
    (project / ".gitignore").write_text("own_helpers.py\nbig/\n")
    with pytest.raises(CannotTravel, match=r"own_helpers.py, which the sweep imports, would be missing on the workers"):
        parcel(project)
    (project / ".gitignore").write_text("big/\n")
    write(project, big__rows_dot_csv="1")
    (project / "sweep.yaml").write_text(text(task={"table": "big/rows.csv"}))
    with pytest.raises(CannotTravel, match=r"task.table: big/rows.csv would be missing on the workers"):
        parcel(project)
    searched = text(parameters={"task.table": {"values": ["table.csv", "big/rows.csv"]}})
    (project / "sweep.yaml").write_text(searched)
    with pytest.raises(CannotTravel, match=r"task.table: big/rows.csv would be missing on the workers"):
        parcel(project)
    (project / ".gitignore").write_text("")
    assert "big/rows.csv" in names(parcel(project))


def test_too_much_is_refused_with_the_largest(project: Path) -> None:
    (project / "movie.bin").write_bytes(b"0" * 50_000)
    with pytest.raises(
        CannotTravel, match=r"0 MB in 7 files; at most 0 MB may be uploaded .*the largest: movie.bin \(0.1 MB\), "
    ):
        parcel(project, limit=20_000)
    (project / ".geosweepignore").write_text("*.bin\n")
    assert "movie.bin" not in names(parcel(project, limit=20_000))


def test_an_archive_arrives(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = parcel(project)
    archive = found.archive
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(CODE, "")
    arrived = arrival.arrive(str(archive))
    assert (arrived.digest, arrived.sweep) == (found.digest, "sweep.yaml")
    assert Path.cwd() == Path(arrived.folder)
    assert sys.path[0] == arrived.folder
    assert (Path.cwd() / "table.csv").read_text() == "1,2\n"
    assert arrival.arrive(str(archive)).folder == arrived.folder
    other = archive.with_name(f"code-{'0' * 64}.zip")
    other.write_bytes(archive.read_bytes())
    with pytest.raises(CannotTravel, match="does not match its name"):
        arrival.arrive(str(other))
    other.write_bytes(b"nothing")
    with pytest.raises(CannotTravel, match="not an archive"):
        arrival.arrive(str(other))


@pytest.mark.slow
def test_on_kubernetes_it_goes_in_a_config_map(project: Path) -> None:
    packages = {"requirements": ["einops==0.8.1"], "image": "registry.example.com/me/own:1"}
    (project / "sweep.yaml").write_text(text(environment=packages))
    found = parcel(project)
    out = render((project / "sweep.yaml").read_text(), "sweep.yaml", parcel=found)
    documents = list(yaml.safe_load_all(out))
    assert not lint(documents)
    sweep, kept, job = documents
    name = found.archive.name
    assert list(kept["binaryData"]) == [name]
    body = job["spec"]
    assert body["entrypoint"].startswith(f"geosweep run sweep.yaml --code /etc/sweep-code/{name} --root /runs ")
    assert yaml.safe_load(body["runtimeEnvYAML"]) == {"pip": ["einops==0.8.1"]}
    pods = [
        body["rayClusterSpec"]["headGroupSpec"]["template"],
        body["rayClusterSpec"]["workerGroupSpecs"][0]["template"],
    ]
    assert {p["spec"]["containers"][0]["image"] for p in pods} == {"registry.example.com/me/own:1"}
    head = pods[0]["spec"]
    assert {"name": "code", "configMap": {"name": kept["metadata"]["name"]}} in head["volumes"]
    assert "sweep.yaml" in sweep["data"]
    away = render(
        (project / "sweep.yaml").read_text(),
        "x",
        root="s3://bucket/r",
        parcel=found,
        code_at="s3://bucket/r/code/c.zip",
    )
    assert "--code s3://bucket/r/code/c.zip --root s3://bucket/r " in away
    assert "binaryData" not in away
    (project / "noise.bin").write_bytes(os.urandom(300_000))
    with pytest.raises(RenderError, match="kB fit into a ConfigMap"):
        render((project / "sweep.yaml").read_text(), "sweep.yaml", parcel=parcel(project))


def test_the_environment_is_sealed_and_changes_no_id(project: Path) -> None:
    plain = sweep_file.loads(text(), "sweep.yaml")
    (project / "requirements.txt").write_text("# what I need\neinops == 0.8.1  # a remark\n\n")
    given = sweep_file.loads(text(environment={"requirements": "requirements.txt"}), "sweep.yaml")
    assert given.environment.requirements == ("einops==0.8.1",)
    assert model.sweep_id(given) == model.sweep_id(plain)
    files, more = seal.code_of(plain).files, seal.code_of(given).files
    assert more.keys() - files.keys() == {"environment.requirements"}
    (project / "sweep.yaml").write_text(text(environment={"requirements": "requirements.txt"}))
    assert "requirements.txt" in names(parcel(project))


def test_requirements_hold_on_this_machine_too(project: Path, call: Callable[..., Called]) -> None:
    (project / "sweep.yaml").write_text(text(environment={"requirements": ["numpy==0.0.1", "no-such-thing==1"]}))
    done = call("run", "sweep.yaml", "--executor", "debug", "--no-tracking")
    assert done.code == 6
    assert "numpy==0.0.1 is required, but numpy" in done.err
    assert "no-such-thing==1 is not installed" in done.err


def test_a_module_beside_the_sweep_file_is_found_from_anywhere(
    project: Path, call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(project)])
    monkeypatch.chdir(tmp_path)
    done = call("validate", str(project / "sweep.yaml"))
    assert done.code == 0, done.err


@pytest.mark.slow
def test_a_run_from_an_archive_says_which_code_it_had(
    project: Path, call: Callable[..., Called], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = parcel(project)
    monkeypatch.setenv(CODE, "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(project)])
    for name in ("own_task", "own_helpers"):
        monkeypatch.delitem(sys.modules, name)
    words = ("run", "sweep.yaml", "--code", str(found.archive), "--executor", "debug", "--no-tracking", "--no-cache")
    done = call(*words)
    assert done.code == 0, done.err
    folder = find(tmp_path / "runs", "@last")
    resolved = json.loads((folder.path / "resolved.json").read_text())
    assert resolved["provenance"]["code"] == found.digest
    files = {t.result.facts["file"] for t in results.ended_trials(folder)}
    assert files == {str(tmp_path / "scratch" / "unpacked" / found.digest / "own_task.py")}


def test_a_home_folder_stays_at_home(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(project))
    with pytest.raises(CannotTravel, match="is not a folder to upload to a cluster"):
        parcel(project)
