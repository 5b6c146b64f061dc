"""The files that services read: workflows, forms, the citation, the builder of the documentation."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not (ROOT / ".github").is_dir(), reason="needs the checkout")

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
OF_RESULTS = ROOT / "docs" / "examples" / "verify_bundles.yml"
FORMS = sorted(set((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")) - {ROOT / ".github/ISSUE_TEMPLATE/config.yml"})


class Unique(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML readers silently keep one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"a key is there twice, line {node.start_mark.line + 1}"
        return super().construct_mapping(node, deep)


def read(path: Path) -> dict[Any, Any]:
    found = yaml.load(path.read_text(encoding="utf-8"), Unique)
    assert isinstance(found, dict)
    return found


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job.get("steps", ())]


def commands(path: Path) -> str:
    return "\n".join(step["run"] for step in steps(path) if "run" in step)


def test_there_are_workflows_for_changes_and_for_releases():
    assert [path.name for path in WORKFLOWS] == ["ci.yml", "release.yml"]
    assert {"pull_request", "push", "schedule", "workflow_call"} <= {
        *read(WORKFLOWS[0])[True]
    }  # YAML 1.1 reads `on` so
    assert read(WORKFLOWS[1])[True] == {"push": {"tags": ["v*"]}}


@pytest.mark.parametrize("path", [*WORKFLOWS, OF_RESULTS], ids=lambda path: path.name)
def test_actions_are_pinned_by_a_commit_and_jobs_have_few_rights_and_a_limit_of_time(path):
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    used = [step["uses"] for step in steps(path) if "uses" in step]
    assert used
    assert [name for name in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", name)] == []
    for name in used:
        assert re.search(rf"{re.escape(name)} # v\d+\.\d+\.\d+$", path.read_text(encoding="utf-8"), re.M), name
    for name, job in workflow["jobs"].items():
        if "uses" in job:
            assert (ROOT / job["uses"]).is_file(), name
        else:
            assert (job["timeout-minutes"] <= 90, bool(job["steps"])) == (True, True), name
        assert {*job.get("needs", ())} <= {*workflow["jobs"]}
    for step in steps(path):
        assert ("uses" in step) != ("run" in step), step
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_one_action_has_one_version_in_all_workflows():
    used = {step["uses"] for path in (*WORKFLOWS, OF_RESULTS) for step in steps(path) if "uses" in step}
    assert len({name.split("@")[0] for name in used}) == len(used)


def test_the_workflow_of_results_verifies_each_bundle_that_changed_and_fails_if_one_does(tmp_path):
    def git(*words: str) -> str:
        own = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
        return subprocess.run(
            ["git", *own, *words], cwd=tmp_path / "repo", capture_output=True, check=True, text=True
        ).stdout.strip()

    def put(name: str, text: str) -> None:
        (tmp_path / "repo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / name).write_text(text)

    for name in ("repo", "temp", "bin"):
        (tmp_path / name).mkdir()
    fake = tmp_path / "bin" / "hashzoo"
    fake.write_text('#!/bin/sh\necho "$2" >> "$RUNNER_TEMP/seen"\ncase "$*" in *bad*) exit 1;; esac\n')
    fake.chmod(0o755)
    git("init", "-q")
    for name in ("boards/digits/old/manifest.json", "boards/digits/gone/manifest.json", "signers"):
        put(name, "1")
    git("add", "-A"), git("commit", "-qm", "base")
    (script,) = [step["run"] for step in steps(OF_RESULTS) if step.get("name") == "verify"]
    surroundings = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "RUNNER_TEMP": str(tmp_path / "temp")}
    surroundings["BASE"] = git("rev-parse", "HEAD")

    def outcome() -> tuple[int, list[str]]:
        git("add", "-A"), git("commit", "-qm", "change")
        done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path / "repo", env=surroundings, check=False)
        seen = tmp_path / "temp" / "seen"
        names = seen.read_text().splitlines()
        seen.unlink()
        return done.returncode, names

    git("rm", "-rq", "boards/digits/gone")
    put("boards/digits/new one/splits/a.npz", "2")
    put("boards/digits/$(touch x)/manifest.json", "2")
    assert outcome() == (0, ["./boards/digits/$(touch x)", "./boards/digits/new one"])
    put("boards/digits/bad/manifest.json", "2")
    assert outcome()[0] == 1
    assert not (tmp_path / "repo" / "x").exists()


def test_the_tests_run_on_every_python_that_the_project_supports():
    matrix = read(WORKFLOWS[0])["jobs"]["tests"]["strategy"]["matrix"]["python"]
    classifiers = [name for name in project()["project"]["classifiers"] if re.search(r":: 3\.\d+$", name)]
    assert matrix == [name.rsplit(" ", 1)[1] for name in classifiers]
    assert project()["project"]["requires-python"] == f">={matrix[0]}"


def test_the_workflow_makes_every_check_of_the_local_script():
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    checks = re.findall(r"^(?:ruff|mypy|sphinx-build|pytest).*$", text, re.M)
    assert len(checks) == 5
    for check in (check.removesuffix(" &") for check in checks):
        assert re.sub(r"\"\$work/docs\"", "docs/_build", check) in commands(WORKFLOWS[0]), check


@pytest.mark.parametrize("path", [*WORKFLOWS, ROOT / ".ci/run", ROOT / ".ci/lowest"], ids=lambda path: path.name)
def test_extras_and_scripts_that_are_named_exist(path):
    text = path.read_text(encoding="utf-8")
    extras = {
        name
        for found in re.findall(r"-e '\.\[([\w,]+)\]'|--extra ([\w]+)", text)
        for name in ",".join(found).split(",")
    }
    assert extras - {""} <= {*project()["project"]["optional-dependencies"]}
    scripts = set(re.findall(r"(?<!\w)\.ci/[\w.-]*\w", text))
    assert [name for name in scripts if not (ROOT / name).is_file()] == []
    tests = set(re.findall(r"\btests/[\w/.]+\b", text))
    assert [name for name in tests if not (ROOT / name).exists()] == []


def test_only_the_upload_may_ask_for_a_token_and_it_waits_for_the_checks():
    jobs = read(WORKFLOWS[1])["jobs"]
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert (jobs["publish"]["needs"], jobs["publish"]["environment"]) == (["checks", "build"], "pypi")
    assert "secrets." not in WORKFLOWS[1].read_text(encoding="utf-8")
    assert ".ci/check_release.py" in commands(WORKFLOWS[1])


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_has_a_name_a_description_and_fields_that_differ(path):
    form = read(path)
    assert {"name", "description", "body"} <= {*form} <= {"name", "description", "body", "labels", "title"}
    assert len({field["id"] for field in form["body"]}) == len(form["body"])
    for field in form["body"]:
        assert {*field} <= {"type", "id", "attributes", "validations"}
        assert field["type"] in {"textarea", "input", "dropdown", "checkboxes"}
        assert field["attributes"]["label"]
        if field["type"] in {"dropdown", "checkboxes"}:
            assert field["attributes"]["options"]


def test_the_page_of_a_pull_request_names_files_that_exist():
    text = (ROOT / ".github" / "pull_request_template.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w.]+(?:/[\w.]+)*)`", text)
    assert {"CHANGELOG.md", ".ci/run"} <= {*named}
    assert [name for name in named if "/" in name and not (ROOT / name).is_file()] == []


def test_the_citation_is_valid_and_of_the_version_that_is_here():
    citation, about = read(ROOT / "CITATION.cff"), project()["project"]
    fields = {"cff-version", "message", "title", "type", "authors", "version", "license", "keywords", "date-released"}
    assert {"cff-version", "message", "title", "authors"} <= {*citation} <= fields  # those of schema 1.2.0 in use
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in {"software", "dataset"}
    assert (citation["version"], citation["license"]) == (about["version"], about["license"])
    assert [*citation["authors"]] == about["authors"]


def test_the_builder_of_the_documentation_has_its_configuration_and_its_extras():
    builder = read(ROOT / ".readthedocs.yaml")
    assert builder["version"] == 2
    assert (ROOT / builder["sphinx"]["configuration"]).is_file()
    assert builder["sphinx"]["fail_on_warning"] is True
    (install,) = builder["build"]["jobs"]["install"]
    (extras,) = re.findall(r"-e '\.\[([\w,]+)\]'", install)
    assert {*extras.split(",")} <= {*project()["project"]["optional-dependencies"]}
    (constraints,) = re.findall(r" -c (\S+)", install)
    assert (ROOT / constraints).is_file()


def test_updates_of_actions_are_asked_for():
    (update,) = read(ROOT / ".github" / "dependabot.yml")["updates"]
    assert update["package-ecosystem"] == "github-actions"
