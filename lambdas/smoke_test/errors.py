"""Why a deployment did not pass. The message is the reason that CloudFormation shows of the failed resource."""


class SmokeTestError(Exception):
    """Indicates that what was deployed does not do what it must; CloudFormation takes it back."""


class InvalidRequestError(Exception):
    """Indicates an event that is no request of CloudFormation, so that nobody waits for an answer."""
