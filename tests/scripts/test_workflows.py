"""GitHub's workflows: valid, and what they name (jobs, artefacts, scripts, options, packages, wheels) is there."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts" / "building"))

import build_wheels  # noqa: E402

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
SYSTEMS = {"ubuntu-latest": "linux", "ubuntu-24.04-arm": "linux", "macos-14": "macos", "windows-latest": "windows"}


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs_of(path: Path) -> dict[str, dict]:
    return read(path)["jobs"]


def steps_of(path: Path) -> list[dict]:
    return [step for job in jobs_of(path).values() for step in job["steps"]]


def commands_of(path: Path) -> list[list[str]]:
    """Every command of every step, in words; what a matrix fills in stays as one word."""
    lines = [line for step in steps_of(path) for line in step.get("run", "").splitlines()]
    lines = [re.sub(r"\$\{\{.*?\}\}", "*", line) for line in lines]
    return [shlex.split(part) for line in lines for part in re.split(r"&&|\|\|", line) if part.strip()]


@cache
def help_of(script: str) -> str:
    done = subprocess.run([sys.executable, ROOT / script, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{script}: {done.stderr}"
    return done.stdout


def test_there_are_workflows_for_tests_and_for_wheels():
    assert {path.name for path in WORKFLOWS} >= {"tests.yml", "wheels.yml"}


@each_workflow
def test_a_workflow_is_one(path):
    workflow = read(path)
    assert set(workflow) == {"name", True, "permissions", "jobs"}, "`on` is read as true"
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        needs = job.get("needs", [])
        assert {needs} if isinstance(needs, str) else set(needs) <= set(workflow["jobs"]), name
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), step
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[\w./-]+", step.get("uses", "a/b@v1")), step


@each_workflow
def test_scripts_and_their_options_are_there(path):
    for words in commands_of(path):
        scripts = [word for word in words if word.startswith(("scripts/", ".ci/"))]
        for script in scripts:
            assert (ROOT / script).is_file(), f"{path.name} runs {script}"
            if script.endswith(".py"):
                for option in (word for word in words if word.startswith("--")):
                    assert re.search(rf"{option}\b", help_of(script)), f"{script} has no {option}"
    assert any(word.startswith(("scripts/", ".ci/")) for words in commands_of(path) for word in words)


@each_workflow
def test_files_that_are_given_are_there(path):
    for words in commands_of(path):
        for word in words:
            if re.match(r"(zoo|eval|tests|csrc|docs)/", word):
                assert (ROOT / word).exists(), f"{path.name} names {word}"


@each_workflow
def test_packages_are_those_of_the_extra(path):
    extra = build_wheels.settings()["project"]["optional-dependencies"]["wheels"]
    names = {re.match(r"[\w-]+", requirement)[0] for requirement in extra}
    for words in commands_of(path):
        if "pip" in words and "install" in words:
            packages = [word for word in words[words.index("install") + 1 :] if not word.startswith(("-", "dist/"))]
            assert set(packages) <= names, f"{path.name} installs {packages}"


@each_workflow
def test_artefacts_that_are_fetched_were_left(path):
    def names(action: str) -> set[str]:
        return {step["with"]["name"] for step in steps_of(path) if action in step.get("uses", "")}

    assert names("download-artifact") <= names("upload-artifact")


def wheels_workflow() -> dict[str, dict]:
    return jobs_of(ROOT / ".github" / "workflows" / "wheels.yml")


def test_every_wheel_is_tried_on_its_own_system():
    tried = wheels_workflow()["try"]["strategy"]["matrix"]["include"]
    for name, platform in build_wheels.PLATFORMS.items():
        rows = [row for row in tried if row["tag"] in platform.tags]
        assert rows, f"nobody tries {name}"
        assert {SYSTEMS[row["runs-on"]] for row in rows} == {platform.system}
        assert all(
            ("arm" in row["runs-on"] or "macos" in row["runs-on"]) == (platform.architecture == "aarch64")
            for row in rows
        )
    assert {row["python"] for row in tried} >= {"3.10"}, "the oldest Python is tried"


def test_the_names_of_wheels_fit_what_is_installed_and_inspected():
    names = [
        f"dist/clipq_runtime-1.0-py3-none-{'.'.join(sorted(one.tags))}.whl" for one in build_wheels.PLATFORMS.values()
    ]
    patterns = [
        word
        for words in commands_of(ROOT / ".github" / "workflows" / "wheels.yml")
        for word in words
        if word.startswith("dist/clipq_runtime") and "GITHUB" not in word
    ]
    assert len(patterns) >= 3
    for pattern in patterns:
        assert fnmatch.filter(names, pattern), f"no wheel is called {pattern}"


def test_publishing_is_by_trust_and_only_from_a_tag():
    publish = wheels_workflow()["publish"]
    assert publish["if"] == "startsWith(github.ref, 'refs/tags/v')"
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "try"
    assert wheels_workflow()["try"]["needs"] == "build"
    text = (ROOT / ".github" / "workflows" / "wheels.yml").read_text(encoding="utf-8")
    assert "password" not in text and "secrets." not in text
