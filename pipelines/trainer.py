"""ModelTrainer whose code channels have content-addressed prefixes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import PrivateAttr
from sagemaker.core.shapes import Channel
from sagemaker.train.model_trainer import ModelTrainer

from pipelines.code_store import CodeBundle, CodeStore


class ContentAddressedTrainer(ModelTrainer):  # type: ignore[misc]  # the SDK has no type information
    """Puts local folders (the SDK's drivers) under prefixes named after their content.

    ModelTrainer uploads them while the definition is rendered, under a prefix that holds the time: every definition would then differ from
    the one before, and no Training step would ever be found in the cache, as InputDataConfig is part of its key.
    """

    _code_store: CodeStore = PrivateAttr()

    def use_code_store(self, code_store: CodeStore) -> ContentAddressedTrainer:
        """Set where local folders are named and remembered; returns the trainer."""
        self._code_store = code_store
        return self

    def create_input_data_channel(self, channel_name: str, data_source: Any, *args: Any, **kwargs: Any) -> Channel:
        """Make the channel; a local folder becomes the S3 URI that `CodeStore.upload` will fill."""
        if isinstance(data_source, str) and not data_source.startswith("s3://"):
            data_source = self._code_store.add(CodeBundle.from_folder(Path(data_source)))
        channel: Channel = super().create_input_data_channel(channel_name, data_source, *args, **kwargs)
        return channel
