"""CloudFormation: templates, stacks, change sets, and one small class per resource type that calls the region's own APIs."""
