"""Resource types: one module per service, one class per type."""
