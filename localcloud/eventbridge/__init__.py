"""Amazon EventBridge: rules on event buses, and the delivery of events to their targets."""
