"""The kinds of actions that a pipeline can have, one module per provider."""
