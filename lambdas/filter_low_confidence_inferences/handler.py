"""FilterLowConfidenceInferences: lets through what the model is sure enough of."""

import os
from typing import Any

from aws_lambda_powertools.logging import Logger

from lambdas.common.envelope import THRESHOLD_FIELD, envelope, parse_probabilities, parse_threshold, unwrap
from lambdas.common.errors import InvalidInputError, LowConfidenceError
from lambdas.common.observability import workflow_function

logger = Logger(service="filter-low-confidence-inferences")


@workflow_function(logger)
def lambda_handler(event: Any, context: Any) -> dict[str, Any]:
    """Takes ImageClassification's envelope. The threshold is the body's, else the environment's CONFIDENCE_THRESHOLD.

    Returns the envelope with `threshold` in its body when the highest of `inferences` is at or above it.

    Raises:
        LowConfidenceError: it is below; the message starts with THRESHOLD_CONFIDENCE_NOT_MET.
        InvalidInputError: no probabilities, or a threshold that is none.
    """
    body = unwrap(event)
    given = body.get(THRESHOLD_FIELD)
    threshold = _default_threshold() if given is None else parse_threshold(given)
    try:
        inferences = parse_probabilities(body.get("inferences"))
    except ValueError as error:
        raise InvalidInputError(f"{error}. ImageClassification has to run first.") from error
    confidence = max(inferences)
    if confidence < threshold:
        raise LowConfidenceError(confidence=confidence, threshold=threshold, predicted_label=str(body.get("predicted_label", "?")))
    logger.info("Inference accepted", extra={"confidence": confidence, "threshold": threshold})
    return envelope(body | {THRESHOLD_FIELD: threshold})


def _default_threshold() -> float:
    try:
        return parse_threshold(float(os.environ["CONFIDENCE_THRESHOLD"]))
    except (KeyError, ValueError, InvalidInputError) as error:
        raise RuntimeError("The function's environment variable CONFIDENCE_THRESHOLD must be set to a number from 0.0 to 1.0.") from error
