"""An AWS region in one process: no account, no Docker, no network.

moto gives the wire protocol and the state of the simpler services; this package adds the behaviour: jobs that run, endpoints that answer, functions,
workflows, events and stacks that do what they do on AWS. README.md in this folder says what is real, what is only recorded and what is refused.
"""
