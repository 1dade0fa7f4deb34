"""SageMaker Pipelines: definitions checked as AWS checks them, executions that really run their steps.

Arrows: `operations` (the API) → `engine` (executions) → `runners` (one step) → `cache`, `retries`, `graph`, `conditions`, `expressions`, `definition`.
"""
