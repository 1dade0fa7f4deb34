"""IAM's decisions: whether a role may do something, by its own policies, the resource's policy and its permissions boundary."""
