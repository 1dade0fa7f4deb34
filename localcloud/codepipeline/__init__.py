"""CodePipeline: executions stage by stage, with actions that really do what they are called."""
