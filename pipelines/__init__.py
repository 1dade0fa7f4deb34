"""The SageMaker Pipeline: typed settings, its definition, and running it."""
