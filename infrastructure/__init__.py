"""CloudFormation templates, the packaging of what they refer to, and their deployment. Imports `lambdas` and no other package."""
