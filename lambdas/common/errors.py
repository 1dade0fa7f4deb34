"""The errors of the classification workflow.

A class's name is a contract: Lambda reports it as `errorType`, and the state machine retries and catches by it. The message becomes the
execution's cause, so each says what is wrong and what to do about it.
"""


class WorkflowError(Exception):
    """Base of all errors by which a function of the workflow refuses or fails. Never raised itself."""


class TransientError(WorkflowError):
    """Base of the errors that trying again may cure; the state machine retries exactly these. Never raised itself."""


class InvalidInputError(WorkflowError):
    """Indicates that the input of the execution, or of a function, is malformed."""


class ImageNotFoundError(WorkflowError):
    """Indicates that the bucket or the object does not exist."""


class ImageAccessDeniedError(WorkflowError):
    """Indicates that S3 refuses to hand the object to the function."""


class EmptyImageError(WorkflowError):
    """Indicates an object of zero bytes."""


class ImageTooLargeError(WorkflowError):
    """Indicates an object above what the endpoint accepts in one request."""


class UnsupportedImageError(WorkflowError):
    """Indicates that the object's bytes are not those of an image that the endpoint takes."""


class ImageStoreUnavailableError(TransientError):
    """Indicates that S3 did not answer, was overloaded or failed."""


class EndpointNotFoundError(WorkflowError):
    """Indicates that no endpoint of that name is in service."""


class EndpointAccessDeniedError(WorkflowError):
    """Indicates that the function's role may not invoke the endpoint."""


class EndpointUnavailableError(TransientError):
    """Indicates that the endpoint did not answer in time, was throttled, not ready or failed."""


class ModelRejectedImageError(WorkflowError):
    """Indicates that the model container refused the image (4xx): damaged, or not of the type it claims."""


class InvalidModelResponseError(WorkflowError):
    """Indicates that the endpoint's answer is not the JSON that this workflow agreed on with the model container."""


class LowConfidenceError(WorkflowError):
    """Indicates that no class reached the threshold. An outcome, not a failure: the state machine sends it to review."""

    CODE = "THRESHOLD_CONFIDENCE_NOT_MET"

    def __init__(self, *, confidence: float, threshold: float, predicted_label: str) -> None:
        super().__init__(
            f"{self.CODE}: confidence {confidence:.9g} in '{predicted_label}' is below the threshold {threshold:.9g}; "
            "a person has to decide."
        )
