"""The source linter: pipeline variables that would be made into text are found, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.errors import DefinitionError
from pipelines.lint import SOURCE_DIR, check_sources, lint_sources

OWN_SOURCES = sorted(SOURCE_DIR.glob("*.py"))
PRELUDE = """
def build(context: BuildContext, parameters: Parameters, step: ProcessingStep, settings: Settings, uri: str | PipelineVariable):
    epochs = parameters.epochs
    renamed = epochs
    joined = Join(on="/", values=["s3:/", epochs])
"""


def problems_in(statement: str, tmp_path: Path) -> list[str]:
    """Problems of one statement in a function of this project's types; each as line and text after the file name."""
    file = tmp_path / "sample.py"
    file.write_text(f"{PRELUDE}    value = {statement}\n", encoding="utf-8")
    return [str(problem).removeprefix(f"{file}:") for problem in lint_sources([*OWN_SOURCES, file]) if problem.path == str(file)]


@pytest.mark.parametrize(
    ("statement", "where"),
    [
        ('f"s3://bucket/{epochs}/data"', "in an f-string"),
        ('f"{renamed!r}"', "in an f-string"),
        ('f"{parameters.epochs:>3}"', "in an f-string"),
        ('f"{context.parameters.input_data_uri}"', "in an f-string"),
        ('f"{uri}"', "in an f-string"),
        ('f"{ExecutionVariables.PIPELINE_EXECUTION_ID}"', "in an f-string"),
        ('f"{step.properties.ModelArtifacts.S3ModelArtifacts}"', "in an f-string"),
        ('f"{step.properties.ProcessingOutputConfig.Outputs[0].S3Output}"', "in an f-string"),
        ("f\"{context.output_uri('Train')}\"", "in an f-string"),
        ("f\"{ParameterString(name='A')}\"", "in an f-string"),
        ('f"{epochs if settings else 3}"', "in an f-string"),
        ("str(epochs)", "in str()"),
        ("int(parameters.seed)", "in int()"),
        ('"{}".format(joined)', "in str.format()"),
        ('"{a}".format(a=joined)', "in str.format()"),
        ('"%s" % epochs', "in a % format"),
        ('"%s/%s" % ("a", epochs)', "in a % format"),
        ('"s3://" + joined', "in a concatenation"),
        ('"/".join(["a", epochs.to_string()])', "in str.join()"),
        ('Join(on="/", values=[f"{epochs}"])', "in an f-string"),
    ],
)
def test_a_variable_made_into_text_is_found_with_its_line(statement: str, where: str, tmp_path: Path) -> None:
    (problem,) = problems_in(statement, tmp_path)
    assert problem.startswith("6: pipeline variable ")
    assert where in problem
    assert "Join(on=..., values=[...])" in problem


@pytest.mark.parametrize(
    "statement",
    [
        'Join(on="/", values=["s3:/", epochs, step.properties.ProcessingJobName])',
        "epochs.to_string()",
        'f"{settings.training.epochs}"',
        'f"{context.settings.pipeline.name}"',
        'f"{epochs.name} {epochs.default_value}"',
        'f"{step.name}"',
        '"/".join(["a", "b"])',
        "str(len([epochs]))",
        'f"{context.platform.bucket}"',
        '"a" + settings.stage',
    ],
)
def test_what_is_known_while_building_may_be_text(statement: str, tmp_path: Path) -> None:
    assert problems_in(statement, tmp_path) == []


def test_a_name_means_what_it_was_last_set_to(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text('def build(a: ParameterString):\n    b = f"{a}"\n    a = "text"\n    c = f"{a}"\n', encoding="utf-8")
    assert [problem.line for problem in lint_sources([file])] == [2]


def test_this_project_s_own_sources_are_clean() -> None:
    assert OWN_SOURCES
    check_sources()


def test_a_problem_ends_the_run_before_anything_is_made(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text('def build(a: ParameterString):\n    return f"{a}" + str(a)\n', encoding="utf-8")
    with pytest.raises(DefinitionError, match=r"sample\.py:2: pipeline variable a in .*\(and 1 more\)"):
        check_sources([file])
    file.write_text("def build(:\n", encoding="utf-8")
    with pytest.raises(DefinitionError, match=r"sample\.py:1: not valid Python"):
        check_sources([file])
