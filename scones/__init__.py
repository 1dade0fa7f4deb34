"""The command line and the demo: the only package that knows both the product and localcloud."""
