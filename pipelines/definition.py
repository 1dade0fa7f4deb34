"""The rendered definition: the pipeline as JSON, with the code that it refers to."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.code_store import STEPS_DIR, CodeBundle, CodeStore
from pipelines.errors import DefinitionError
from pipelines.platform import Platform
from pipelines.sdk import pipeline_session, sdk_environment
from pipelines.settings import Settings

if TYPE_CHECKING:
    import boto3

PIPELINE_MODULE = "pipelines.pipeline"


@dataclass(frozen=True)
class RenderedDefinition:
    """A pipeline definition, and the code bundles to stage before it can run."""

    text: str
    code: CodeStore

    @property
    def document(self) -> dict[str, Any]:
        """The definition as a JSON document."""
        document: dict[str, Any] = json.loads(self.text)
        return document


def render_definition(
    settings: Settings,
    platform: Platform,
    boto_session: boto3.Session,
    *,
    revision: str | None = None,
    steps_dir: Path = STEPS_DIR,
    module_name: str = PIPELINE_MODULE,
) -> RenderedDefinition:
    """Build the pipeline and render it. Imports the SageMaker SDK, which takes seconds; makes no request.

    Args:
        module_name: Module with a ``get_pipeline`` of the signature of `pipelines.pipeline.get_pipeline`.

    Raises:
        DefinitionError: There is no such module or function, or no job script.
    """
    code = CodeStore(platform.bucket)
    steps = CodeBundle.from_folder(steps_dir)
    with sdk_environment(platform.region):
        try:
            get_pipeline = importlib.import_module(module_name).get_pipeline
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise DefinitionError(f"there is no module {module_name}; the pipeline of this project is {PIPELINE_MODULE}") from None
        except AttributeError:
            raise DefinitionError(f"module {module_name} has no get_pipeline; the pipeline of this project is {PIPELINE_MODULE}") from None
        session = pipeline_session(boto_session, platform.bucket)
        text = get_pipeline(settings, session, platform=platform, code=code, steps=steps, revision=revision).definition()
    return RenderedDefinition(text, code)
