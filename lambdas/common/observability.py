"""Structured logs: one JSON object a line, correlated by the execution that a function works for, with the release that wrote it."""

import functools
import os
from collections.abc import Callable
from typing import Any

from aws_lambda_powertools.logging import Logger

from lambdas.common.errors import WorkflowError

Handler = Callable[[Any, Any], dict[str, Any]]
EXECUTION_FIELD = "execution_arn"


def workflow_function(logger: Logger) -> Callable[[Handler], Handler]:
    """Makes a handler one of the workflow: every log line has the execution's ARN and the release; an error is logged before it is raised."""

    def decorate(handler: Handler) -> Handler:
        @functools.wraps(handler)
        def logged(event: Any, context: Any) -> dict[str, Any]:
            logger.append_keys(release=os.environ.get("RELEASE"))
            try:
                return handler(event, context)
            except WorkflowError as error:
                logger.error(str(error), extra={"error_name": type(error).__name__})
                raise

        return logger.inject_lambda_context(correlation_id_path=EXECUTION_FIELD, clear_state=True)(logged)

    return decorate
