"""Why a deployment was not made. Each is raised, so that Lambda tries the event again and then puts it on the dead-letter queue."""


class DeploymentError(Exception):
    """Base of all errors of a deployment. Never raised itself."""


class InvalidEventError(DeploymentError):
    """Indicates an event that is no model package state change, so nothing can be decided from it."""


class ModelPackageNotFoundError(DeploymentError):
    """Indicates that the model package of the event no longer exists."""


class ModelPackageNotReadyError(DeploymentError):
    """Indicates an approved model package whose creation has not completed, or failed."""


class NoRollbackTargetError(DeploymentError):
    """Indicates that the version in production was rejected and no other version is Approved."""


class DeploymentInProgressError(DeploymentError):
    """Indicates that the stack is still changing at the end of this function's time; the next try goes on waiting."""


class DeploymentFailedError(DeploymentError):
    """Indicates that CloudFormation could not make the change. What served before serves on."""


class StackNotUpdatableError(DeploymentError):
    """Indicates a stack in a state that only a person can get it out of."""
