"""SageMaker in this region: jobs, the model registry, endpoints and pipelines that really run."""
