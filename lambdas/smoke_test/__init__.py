"""Tries a deployment before CloudFormation calls it done."""
