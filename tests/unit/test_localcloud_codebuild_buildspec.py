"""Buildspecs: what is read, and what each mistake is called."""

from __future__ import annotations

import platform
import sys
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from localcloud.codebuild.buildspec import (
    Artifact,
    Buildspec,
    BuildspecError,
    Environment,
    OnFailure,
    Phase,
    PhaseName,
    parse_buildspec,
)
from localcloud.codebuild.runtimes import select_runtimes

FULL = """
version: 0.2
env:
  shell: bash
  variables:
    PLAIN: yes
    NUMBER: 1.10
  parameter-store:
    PARAMETER: /a/b
  secrets-manager:
    SECRET: id:key
  exported-variables:
    - RESULT
  git-credential-helper: no
phases:
  install:
    runtime-versions:
      python: 3.10
    commands:
      - pip install x
  build:
    on-failure: CONTINUE
    commands:
      - make
      - |
        one
        two
    finally:
      - echo done
  post_build:
    commands: [a, b]
artifacts:
  files:
    - '**/*'
  name: x-$(date)
  base-directory: out
  discard-paths: yes
  exclude-paths: ['*.pyc']
  secondary-artifacts:
    other:
      files: one.txt
cache:
  paths:
    - /root/.cache/**/*
"""


def test_everything_is_read() -> None:
    assert parse_buildspec(FULL) == Buildspec(
        Environment({"PLAIN": "yes", "NUMBER": "1.10"}, {"PARAMETER": "/a/b"}, {"SECRET": "id:key"}, ("RESULT",), "bash"),
        {"python": "3.10"},
        {
            PhaseName.INSTALL: Phase(("pip install x",)),
            PhaseName.BUILD: Phase(("make", "one\ntwo\n"), ("echo done",), OnFailure.CONTINUE),
            PhaseName.POST_BUILD: Phase(("a", "b")),
        },
        Artifact(("**/*",), "x-$(date)", "out", True, ("*.pyc",)),
        {"other": Artifact(("one.txt",))},
    )


def test_json_is_a_buildspec_too() -> None:
    assert parse_buildspec('{"version": "0.2", "phases": {"build": {"commands": ["x"]}}}').phases == {PhaseName.BUILD: Phase(("x",))}


def test_secondary_artifacts_need_no_primary_one() -> None:
    spec = parse_buildspec(f"{MINIMAL}artifacts:\n  secondary-artifacts:\n    a:\n      files: [x]\n")
    assert spec.artifact is None
    assert spec.secondary_artifacts == {"a": Artifact(("x",))}


MINIMAL = "version: 0.2\nphases:\n  build:\n    commands:\n      - x\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the buildspec has no version; write version: 0.2"),
        ("just text", "expected the buildspec to be a mapping at line 1"),
        ("version: 0.3\n", "unknown version 0.3 at line 1; the version is 0.2"),
        ("version: 0.1\n", "version 0.1 at line 1 is not supported by localcloud"),
        ("version: 0.2\n", "the buildspec has no phases; at least one is needed"),
        ("version: 0.2\nphases: [x]\n", "expected phases to be a mapping at line 2"),
        ("version: 0.2\nphases:\n  biuld:\n    commands: [x]\n", "phases/biuld at line 3 is not part of a buildspec; expected one of build, install"),
        ("version: 0.2\nphases:\n  build:\n", "phases/build at line 3 has no commands"),
        ("version: 0.2\nphases:\n  build:\n    commands: []\n", "phases/build at line 3 has no commands"),
        ("version: 0.2\nphases:\n  build:\n    commands: make\n", "expected phases/build/commands at line 4 to be a sequence"),
        (
            "version: 0.2\nphases:\n  build:\n    commands:\n      - ok\n      - echo a: b\n",
            "Expected Commands[1] to be of string type: found subkeys instead at line 6, value of the key tag on line 4 might be empty",
        ),
        (MINIMAL + "phases: {}\n", "the key phases of the buildspec is given more than once, at line 6"),
        (MINIMAL + "batch:\n  fast-fail: false\n", "batch at line 6 is not supported by localcloud"),
        (MINIMAL + "reports:\n  r: {}\n", "reports at line 6 is not supported by localcloud"),
        (MINIMAL + "    run-as: me\n", "phases/build/run-as at line 6 is not supported by localcloud"),
        (MINIMAL + "    on-failure: RETRY\n", "phases/build/on-failure RETRY at line 6 is not supported by localcloud"),
        (MINIMAL + "    on-failure: abort\n", "phases/build/on-failure at line 6 is abort; expected ABORT or CONTINUE"),
        (MINIMAL + "    runtime-versions:\n      python: 3\n", "phases/build/runtime-versions at line 6 is not part of a buildspec"),
        (MINIMAL + "env:\n  shell: powershell.exe\n", "env/shell powershell.exe at line 7 is not supported by localcloud"),
        (MINIMAL + "env:\n  git-credential-helper: yes\n", "env/git-credential-helper at line 7 is not supported by localcloud"),
        (MINIMAL + "env:\n  variables:\n    A-B: x\n", "env/variables/A-B at line 8 is not the name of a variable"),
        (MINIMAL + "env:\n  variables:\n    A: [x]\n", "expected env/variables/A at line 8 to be of string type"),
        (MINIMAL + "env:\n  exported-variables: ['A B']\n", "A B in env/exported-variables at line 7 is not the name of a variable"),
        (MINIMAL + "artifacts:\n  name: x\n", "artifacts at line 7 has no files"),
        (MINIMAL + "artifacts:\n  files: [x]\n  discard-paths: maybe\n", "expected artifacts/discard-paths at line 8 to be yes or no, not maybe"),
        (MINIMAL + "artifacts:\n  files: [x]\n  enable-symlinks: yes\n", "artifacts/enable-symlinks at line 8 is not supported by localcloud"),
        (MINIMAL + "<<: {a: b}\n", "<< at line 6 is not supported by localcloud"),
        (MINIMAL + "  build:\n   commands: [", "at line 7"),
        (MINIMAL + "? [a]\n: b\n", "expected a key of string type at line 6"),
        ("a: \x00", "special characters are not allowed"),
        ("[" * 5000, "the file is nested too deeply"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(text: str, message: str) -> None:
    with pytest.raises(BuildspecError) as caught:
        parse_buildspec(text)
    assert message in caught.value.message
    assert caught.value.code == "YAML_FILE_ERROR"


names = st.from_regex(r"[A-Z_][A-Z0-9_]{0,8}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
commands = st.lists(texts, min_size=1, max_size=3)
phase = st.fixed_dictionaries({"commands": commands}, optional={"finally": commands, "on-failure": st.sampled_from(["ABORT", "CONTINUE"])})
artifact = st.fixed_dictionaries(
    {"files": commands},
    optional={"name": texts, "base-directory": texts, "discard-paths": st.booleans(), "exclude-paths": commands},
)


@given(
    st.dictionaries(st.sampled_from([str(name) for name in PhaseName]), phase, min_size=1),
    st.dictionaries(names, texts),
    artifact,
    st.dictionaries(names, artifact),
)
def test_what_is_written_is_read(
    phases: dict[str, Any], variables: dict[str, str], primary: dict[str, Any], secondary: dict[str, Any]
) -> None:
    content = {
        "version": "0.2",
        "env": {"variables": variables},
        "phases": phases,
        "artifacts": primary | {"secondary-artifacts": secondary},
    }
    spec = parse_buildspec(yaml.safe_dump(content, allow_unicode=True, sort_keys=False))
    assert spec.environment.variables == variables
    assert {str(name): (list(item.commands), list(item.finally_), item.on_failure) for name, item in spec.phases.items()} == {
        name: (item["commands"], item.get("finally", []), item.get("on-failure")) for name, item in phases.items()
    }
    assert spec.artifact is not None
    for read, written in [(spec.artifact, primary), *((spec.secondary_artifacts[name], secondary[name]) for name in secondary)]:
        assert list(read.files) == written["files"]
        assert read.name == written.get("name")
        assert read.base_directory == written.get("base-directory", ".")
        assert read.discard_paths is written.get("discard-paths", False)
        assert list(read.exclude_paths) == written.get("exclude-paths", [])


def message_of(text: str) -> str:
    """Return why a text is refused; empty when it is not."""
    try:
        parse_buildspec(text)
    except BuildspecError as error:
        return error.message
    return ""


values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.sampled_from(["commands", "files", "build", "phases"]), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["version", "env", "phases", "artifacts", "cache", "batch"]), values))
def test_any_content_is_read_or_refused_in_one_line(content: dict[str, Any]) -> None:
    assert "\n" not in message_of(yaml.safe_dump({"version": "0.2"} | content, allow_unicode=True))


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    assert "\n" not in message_of(text)


@pytest.mark.parametrize("version", ["3.12", "3.x", "3", "latest", str(sys.version_info.major), "3.11.4"])
def test_python_is_the_one_that_there_is(version: str) -> None:
    first, second = select_runtimes({"python": version})
    assert first == f"Selecting 'python' runtime version '{version}' based on manual selections..."
    assert platform.python_version() in second


@pytest.mark.parametrize(
    ("runtimes", "message"),
    [
        ({"python": "2.7"}, f"Unknown runtime version named '2.7' of python. This build image has the following versions: {platform.python_version()}"),
        ({"python": "three"}, "Unknown runtime version named 'three' of python"),
        ({"nodejs": "20"}, "Unknown runtime named 'nodejs'. This build image has the following runtimes: python"),
    ],
)  # fmt: skip
def test_other_runtimes_are_refused(runtimes: dict[str, str], message: str) -> None:
    with pytest.raises(BuildspecError) as caught:
        select_runtimes(runtimes)
    assert caught.value.message.startswith(message)
