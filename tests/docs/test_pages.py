"""What the documentation shows is true: code runs, sweep files are valid, commands exist, nothing is left out."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

import geosweep
import optim_core
from docs.generate import command, links, methods, rooms, sweep_file
from optim_core import preconditioners, rotations
from orchestrator.cli.app import Exit
from orchestrator.definition import sweep_file as definition
from orchestrator.kubernetes import profiles
from tests.docs.blocks import BASE, ROOT, SPAN, WORDS, Block, blocks, commands, fragments, pages

TESTED_ELSEWHERE = {"docs/scripts.md", "CONTRIBUTING.md"}
"""By tests/orchestrator/test_program_docs.py and tests/test_contributing.py."""


def own_files(page: str, folder: Path) -> None:
    """Write the files that a page shows: blocks with a title, or whose first line names one."""
    for block in (*blocks("python"), *blocks("yaml")):
        name = block.title or next(iter(re.findall(r"\A# (\S+\.(?:py|yaml))\n", block.text)), "")
        if block.page == page and name:
            (folder / name).write_text(block.text)


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which the test is, and in which modules are found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_sweep_files_and_profiles_are_valid(block: Block, beside: Path) -> None:
    if block.text.startswith("extends:"):
        (beside / "team.yaml").write_text(block.text)
        assert profiles.load(str(beside / "team.yaml")).namespace
        return
    own_files(block.page, beside)
    (beside / "train.py").touch()
    (beside / "words.py").write_text(WORDS)
    (beside / "requirements.txt").write_text("einops==0.8.1\n")
    text = (ROOT / "CONTRIBUTING.md").read_text().split("## A task", 1)[1]
    (beside / "my_tasks.py").write_text(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0])
    for given in fragments(block.text):
        if "program" in given["task"] and set(given["arms"]) == set(BASE["arms"]):
            given |= {"metric": {"name": "val_loss", "goal": "minimize"}, "arms": {"a": {}}}
        if "0a1b..." in str(given.get("method")):
            continue  # a commit with its digits left out
        if given["task"].get("data"):
            given = {**given, "task": {"name": "digits"}}  # nobody's data are here
        assert definition.loads(yaml.safe_dump(given, sort_keys=False), str(beside / "sweep.yaml")).name


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a small sweep that is done, and whose best hyperparameter is `lr`."""
    root = tmp_path_factory.mktemp("docs") / "runs"
    quick = {**BASE, "name": "llqr-sam", "task": {"name": "digits", "model": "mlp"}, "arms": {"sgd": {}, "adamw": {}}}
    quick |= {"budget": {"per_trial": 8, "trials_per_arm": 1}, "evaluations": 1}
    geosweep.run(quick, root=root, executor="debug", tracking=False, progress=False)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({b.page for b in blocks("python")} - TESTED_ELSEWHERE))
def test_python_runs(page: str, beside: Path, small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page one after another; what they run is a small sweep, in this process."""
    own_files(page, beside)
    monkeypatch.setenv("GEOSWEEP_ROOT", str(small))
    (beside / "runs").symlink_to(small)
    done = geosweep.load("@last")
    known: dict[str, Any] = {"sweep": done, "pd": pd}
    for block in (b for b in blocks("python") if b.page == page and not b.title):
        text = re.sub(r"geosweep\.run\([^\n]*", 'geosweep.load("@last")', block.text)
        text = text.replace("llqr-sam-1a2b3c4d", done.id)
        exec(compile(text, str(block), "exec"), known)
    for block in (b for b in blocks("python") if b.page == page and b.title):
        exec(compile(block.text, block.title, "exec"), {"__name__": block.title.removesuffix(".py")})


@pytest.mark.slow
def test_own_optimizers_are_what_their_page_says(beside: Path) -> None:
    """The class with declarations can be an arm and keeps what it declares."""
    own_files("docs/own_optimizer.md", beside)
    assert optim_core.learning_rate("damped.Damped") == "lr"
    assert [one.equals for one in optim_core.limits("damped.Damped")] == ["sgd"]
    assert optim_core.hyperparameters("signs.SignDescent")["weight_decay"].default == 0


@pytest.mark.slow
def test_commands_are_taken() -> None:
    """Every call of the command on any page is parsed by the application: verb, options, number of arguments."""
    application, seen = command.application(), set()
    for page, words in commands():
        context = application.make_context("geosweep", list(words), resilient_parsing=False)
        found, rest = application, [*context._protected_args, *context.args]
        try:
            while getattr(found, "commands", None):
                name, found, rest = found.resolve_command(context, rest)
                context = found.make_context(name, list(rest), parent=context)
                rest = [*getattr(context, "_protected_args", ()), *context.args]
        except Exception as error:
            pytest.fail(f"{page}: geosweep {' '.join(words)}: {error}")
        seen.add(name)
    assert {"run", "compare", "report", "convert", "extend"} <= seen


def test_verbs_in_the_text_exist() -> None:
    known = {path.split()[1] for path, _ in command.verbs(command.application())}
    for page, text in pages().items():
        for found in SPAN.finditer(text):
            word = found[1].split()[1]
            assert word in known or not word.isalpha() or word.isupper(), f"{page}: {found[0]}"


def test_the_reference_has_every_verb_and_says_what_each_option_is() -> None:
    page = command.page()
    for path, one in command.verbs(command.application()):
        assert f"\n## {path.removeprefix('geosweep ')}\n" in page
        for parameter in one.params:
            if not getattr(parameter, "hidden", False) and parameter.name != "help":
                assert parameter.help, f"{path} {parameter.name} says nothing"
                assert command.row(parameter) in page
    assert all(f"| {int(code)} | {command.SAYS[code]} |" in page for code in Exit)


def test_the_reference_has_every_key_of_the_sweep_file_and_says_what_it_means() -> None:
    page, whole = sweep_file.page(), sweep_file.schema()
    for name, model in {"": whole, **whole["$defs"]}.items():
        for key, part in model.get("properties", {}).items():
            inner = next(sweep_file.models_in(part), None)
            assert part.get("description") or whole["$defs"][inner]["description"], f"{name}.{key} says nothing"
            assert f"\n| `{key}` | " in page


def test_every_optimizer_has_a_page_with_what_it_declares() -> None:
    found: dict[str, str] = {}
    for path, names in methods.pages():
        text = path.read_text()
        for name in names:
            assert name not in found, f"{name} has two pages"
            found[name] = path.name
            assert f"<!-- declared: {name} -->" in text
            assert all(part in text for part in ("## Step", "$$", "**Source.**", "## When to use it"))
        if names:
            assert methods.MARK.findall(text) == names
    assert set(found) == set(optim_core.registered())


@pytest.mark.slow
@pytest.mark.parametrize("name", optim_core.registered())
def test_what_an_optimizer_declares_is_shown(name: str) -> None:
    block = methods.block(name)
    for key, parameter in optim_core.hyperparameters(name).items():
        assert methods.meaning(name, key), f"docs/methods/hyperparameters.yaml has no meaning of {key} of {name}"
        assert f"| `{key}` | {methods.meaning(name, key)} | {methods.shown(parameter.default)} |" in block
    assert block.count("- **Equals** ") == len(optim_core.limits(name))


def test_kinds_and_structures_are_on_their_pages() -> None:
    for page, names in (("rotated", rotations.kinds()), ("llqr", preconditioners.structures())):
        text = (methods.HERE / f"{page}.md").read_text()
        assert [name for name in names if f"`{name}`" not in text] == []


def test_ranges_are_those_that_the_class_refuses() -> None:
    shown = {key: methods.usable("sam", key, p) for key, p in optim_core.hyperparameters("sam").items()}
    assert shown["momentum"] == "[0, 1)"
    assert shown["sam_radius"] == "≥ 0"
    assert shown["eps"] == "> 0"
    assert shown["base"] == "`sgd`, `adamw`"


def test_state_is_counted() -> None:
    assert methods.state("sgd").startswith("1 ")
    assert methods.state("adamw").startswith("2 ")
    rows, columns = methods.SHAPE
    assert methods.state("soap").startswith(f"{2 + 2 * (rows / columns + columns / rows):.3g} ")


def test_the_picture_of_the_rooms_is_of_the_table() -> None:
    assert rooms.PICTURE.read_text() == rooms.picture(), "python -m docs.generate.rooms draws it anew"
    arrows = rooms.reduced(rooms.rooms())
    assert all(rooms.rooms()[other].level < room.level for room in rooms.rooms().values() for other in room.knows)
    assert arrows["runner"] <= rooms.rooms()["runner"].knows


def test_names_of_documents_become_links() -> None:
    assert links.turned("see `docs/search.md`", "reference/command.md") == "see [`docs/search.md`](../search.md)"
    assert links.turned("see `docs/nowhere.md`", "search.md") == "see `docs/nowhere.md`"
    assert links.turned("```\n`docs/search.md`\n```\n", "x.md") == "```\n`docs/search.md`\n```\n"
    assert links.turned("[rules](../sweeps/LINT.md#top)", "search.md") == "[rules](reference/lint.md#top)"
    assert links.turned("[search](../docs/search.md)", "cluster.md") == "[search](search.md)"
    assert links.turned("[base](base/kustomization.yaml)", "cluster.md") == "base"
    assert "batch_identity" in links.included("<!-- include: CONTRIBUTING.md # A task -->")


@pytest.mark.slow
def test_the_site_is_built_strictly_and_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No broken link, every method with its formulas drawn, and not one script, style or font from elsewhere."""
    from mkdocs.commands import build
    from mkdocs.config import load_config

    monkeypatch.chdir(ROOT)
    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path / "site"))
    build.build(config)
    built = {str(p.relative_to(tmp_path / "site")): p.read_text() for p in (tmp_path / "site").rglob("*.html")}
    for path, names in methods.pages():
        if names:
            page = built[f"methods/{path.stem}.html"]
            assert "<math" in page
            assert "arithmatex" not in page
            assert all(f"<code>{key}</code>" in page for name in names for key in optim_core.hyperparameters(name))
    for package in (geosweep, optim_core):
        page = built[f"reference/{'python' if package is geosweep else 'optim_core'}.html"]
        names = [name for name in package.__all__ if not inspect.ismodule(getattr(package, name))]
        assert [name for name in names if f'id="{package.__name__}.{name}"' not in page] == []
    assert [name for name, page in built.items() if "<math" in page and not name.startswith("methods/")] == []
    for name, page in built.items():
        assert not re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(?:https?:)?//", page), name
