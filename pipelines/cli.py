"""The console scripts of AWS's MLOps project template: ``get-pipeline-definition`` and ``run-pipeline``.

They take the template's options with the template's meaning, so a build that calls them keeps working; ``--kwargs``, which the template passes
to ``get_pipeline``, sets the settings of the same meaning.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pipelines.errors import PipelinesError, SettingsError
from pipelines.settings import DEFAULT_STAGE, Settings, load_settings

# What the template's get_pipeline takes, and the setting that means the same.
_KWARGS: dict[str, str | None] = {
    "region": "aws.region",
    "role": "aws.job_role_arn",
    "default_bucket": "aws.bucket",
    "pipeline_name": "pipeline.name",
    "model_package_group_name": "registry.model_package_group",
    "processing_instance_type": "processing.instance_type",
    "training_instance_type": "training.instance_type",
    "base_job_prefix": None,  # jobs of a pipeline are named by SageMaker
    "sagemaker_project_name": None,  # a tag: --tags
    "sagemaker_project_arn": None,
}
_EXIT_FAILED, _EXIT_USAGE = 1, 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(_EXIT_USAGE, f"{self.prog}: {message}; see {self.prog} --help\n")


def get_pipeline_definition(arguments: Sequence[str] | None = None) -> int:
    """Console script: write the pipeline definition to a file or to standard output. Returns the exit code."""
    parser = _parser("get-pipeline-definition", "Gets the pipeline definition for the pipeline script.")
    parser.add_argument("-f", "--file-name", dest="file_name", type=Path, help="The file to output the pipeline definition json to.")
    return _guarded(_write_definition, parser, arguments)


def run_pipeline(arguments: Sequence[str] | None = None) -> int:
    """Console script: create or update the pipeline, start it and wait for its end. Returns the exit code."""
    parser = _parser("run-pipeline", "Creates or updates and runs the pipeline for the pipeline script.")
    parser.add_argument("-role-arn", "--role-arn", dest="role_arn", help="The role arn for the pipeline service execution role.")
    parser.add_argument("-description", "--description", dest="description", help="The description of the pipeline.")
    parser.add_argument(
        "-tags",
        "--tags",
        dest="tags",
        help="""List of dict strings of '[{"Key": "string", "Value": "string"}, ..]' for the pipeline's tags.""",
    )
    parser.add_argument("--input-data-uri", help="Staged images: an S3 prefix with manifest.json.")
    parser.add_argument("--no-wait", action="store_true", help="Return once the execution has started.")
    return _guarded(_run, parser, arguments)


def _parser(program: str, description: str) -> argparse.ArgumentParser:
    from pipelines.definition import PIPELINE_MODULE

    parser = _Parser(prog=program, description=description, allow_abbrev=False)
    parser.add_argument(
        "-n",
        "--module-name",
        dest="module_name",
        default=PIPELINE_MODULE,
        help="The module name of the pipeline to import (default: %(default)s).",
    )
    parser.add_argument(
        "-kwargs",
        "--kwargs",
        dest="kwargs",
        default="{}",
        help=f"Dict string of keyword arguments for the pipeline generation: {', '.join(_KWARGS)}.",
    )
    parser.add_argument("--stage", default=DEFAULT_STAGE, help="Stage whose settings file in config/ is used (default: %(default)s).")
    parser.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE", help="Override one setting; may be repeated."
    )
    return parser


def _guarded(command: Any, parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Run the command; what a person can mend is one line on standard error, never a traceback."""
    from botocore.exceptions import BotoCoreError, ClientError

    options = parser.parse_args(arguments)
    try:
        code: int = command(options)
    except SettingsError as error:
        return _failed(parser, error, _EXIT_USAGE)
    except (PipelinesError, ClientError, BotoCoreError, OSError) as error:
        return _failed(parser, error, _EXIT_FAILED)
    return code


def _failed(parser: argparse.ArgumentParser, error: Exception, code: int) -> int:
    sys.stderr.write(f"{parser.prog}: {' '.join(str(error).split())}\n")
    return code


def _write_definition(options: argparse.Namespace) -> int:
    import boto3

    from pipelines.definition import load_definition
    from pipelines.lint import check_sources
    from pipelines.platform import resolve_platform
    from pipelines.revision import source_revision

    settings = _settings(options)
    check_sources()
    session = boto3.Session(region_name=settings.aws.region)
    platform = resolve_platform(settings, session)
    text = load_definition(settings, platform, session, revision=source_revision(), module_name=options.module_name).text
    if options.file_name is None:
        sys.stdout.write(f"{text}\n")
    else:
        options.file_name.write_text(text, encoding="utf-8")
    return 0


def _run(options: argparse.Namespace) -> int:
    import boto3

    from pipelines.executions import StepProgress
    from pipelines.run import Preparing, RunEvent, Started
    from pipelines.run import run_pipeline as run

    settings = _settings(options)

    def show(event: RunEvent) -> None:
        match event:
            case Preparing():
                sys.stdout.write(f"{event.detail}\n")
            case Started():
                sys.stdout.write(f"###### Execution started with PipelineExecutionArn: {event.execution_arn}\n")
            case StepProgress():
                notes = [note for note in ("cached" if event.cached else "", event.failure_reason or "") if note]
                sys.stdout.write(f"{event.name}: {event.status}{f' ({chr(59).join(notes)})' if notes else ''}\n")
        sys.stdout.flush()

    result = run(
        settings,
        boto3.Session(region_name=settings.aws.region),
        input_data_uri=options.input_data_uri,
        wait=not options.no_wait,
        on_event=show,
        module_name=options.module_name,
    )
    sys.stdout.write(f"###### Execution {result.status}{f': {result.failure_reason}' if result.failure_reason else ''}\n")
    return 0 if options.no_wait or result.status == "Succeeded" else _EXIT_FAILED


def _settings(options: argparse.Namespace) -> Settings:
    """Settings of the stage, with what the template's options say on top; ``--set`` wins over all."""
    overrides = [f"{setting}={value}" for setting, value in _from_kwargs(options.kwargs)]
    if getattr(options, "role_arn", None):
        overrides.append(f"aws.pipeline_role_arn={options.role_arn}")
    if getattr(options, "description", None):
        overrides.append(f"pipeline.description={options.description}")
    if getattr(options, "tags", None):
        tags = _literal("--tags", options.tags, list)
        try:
            named = [{"key": tag["Key"], "value": tag["Value"]} for tag in tags]
        except (KeyError, TypeError):
            raise SettingsError(
                f'--tags {options.tags}: write \'[{{"Key": "k", "Value": "v"}}]\'', key="--tags", value=options.tags
            ) from None
        overrides.append(f"project.tags={json.dumps(named)}")
    return load_settings(options.stage, [*overrides, *options.overrides]).settings


def _from_kwargs(text: str) -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in _literal("--kwargs", text, dict).items():
        if name not in _KWARGS:
            near = difflib.get_close_matches(str(name), _KWARGS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise SettingsError(
                f"--kwargs {name}{hint}: known are {', '.join(_KWARGS)}; any setting can be given with --set", key=str(name)
            )
        if (setting := _KWARGS[name]) is not None and value is not None:
            pairs.append((setting, value))
    return pairs


def _literal(option: str, text: str, kind: type) -> Any:
    """A JSON document or a Python literal, as the template's scripts take."""
    try:
        value = json.loads(text)
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = None
    if not isinstance(value, kind):
        raise SettingsError(f"{option} {text}: neither JSON nor a Python literal of a {kind.__name__}", key=option, value=text)
    return value
