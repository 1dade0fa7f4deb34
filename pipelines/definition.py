"""The rendered definition: the pipeline as JSON, with the code that it refers to; kept on disk, because the SageMaker SDK takes seconds to import."""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.code_store import STEPS_DIR, CodeBundle, CodeStore
from pipelines.definition_checks import check_definition
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


def load_definition(
    settings: Settings,
    platform: Platform,
    boto_session: boto3.Session,
    *,
    revision: str | None = None,
    steps_dir: Path = STEPS_DIR,
    module_name: str = PIPELINE_MODULE,
    cache_dir: Path | None = None,
) -> RenderedDefinition:
    """Render and check the definition, or read it from `cache_dir` when everything it is made from is as it was.

    Raises:
        DefinitionError: The definition is wrong, or something it needs is missing.
    """
    if cache_dir is None:
        definition = render_definition(settings, platform, boto_session, revision=revision, steps_dir=steps_dir, module_name=module_name)
        check_definition(definition.text)
        return definition
    file = cache_dir / "definition.json"
    key = _ingredients_digest(settings, platform, revision, steps_dir, module_name)
    if (cached := _read(file, key, platform.bucket)) is not None:
        return cached
    definition = load_definition(settings, platform, boto_session, revision=revision, steps_dir=steps_dir, module_name=module_name)
    _write(file, key, definition)
    return definition


def _ingredients_digest(settings: Settings, platform: Platform, revision: str | None, steps_dir: Path, module_name: str) -> str:
    """Digest of everything a definition is made from; the module is another's when it is not in this package, so its file is added."""
    try:
        spec = importlib.util.find_spec(module_name)
    except ModuleNotFoundError:
        spec = None
    module = Path(spec.origin).read_text(encoding="utf-8") if spec is not None and spec.origin is not None else ""
    ingredients: Mapping[str, object] = {
        "settings": settings.model_dump(mode="json"),
        "platform": asdict(platform),
        "revision": revision,
        "steps": CodeBundle.from_folder(steps_dir).digest,
        "pipelines": CodeBundle.from_folder(Path(__file__).parent).digest,
        "module": [module_name, module],
        "versions": [sys.version, *(f"{name} {importlib.metadata.version(name)}" for name in ("sagemaker", "sagemaker-core", "botocore"))],
    }
    return hashlib.sha256(json.dumps(ingredients, sort_keys=True).encode()).hexdigest()


def _read(file: Path, key: str, bucket: str) -> RenderedDefinition | None:
    """The definition in the cache file; None when it was made from something else or is damaged, in which case it is rendered again."""
    try:
        content = json.loads(file.read_bytes())
        if content["key"] != key:
            return None
        code = CodeStore(bucket)
        for files in content["code"]:
            code.add(CodeBundle({name: base64.b64decode(text) for name, text in files.items()}))
        return RenderedDefinition(content["definition"], code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write(file: Path, key: str, definition: RenderedDefinition) -> None:
    """Put the definition into the cache file, whole or not at all; a disk that refuses costs time at the next run, nothing else."""
    bundles = [
        {name: base64.b64encode(content).decode() for name, content in bundle.files.items()} for bundle in definition.code.bundles.values()
    ]
    partial = file.with_suffix(f".{os.getpid()}.partial")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"key": key, "definition": definition.text, "code": bundles}), encoding="utf-8")
        partial.replace(file)
    except OSError:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
