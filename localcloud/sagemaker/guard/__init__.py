"""This folder is put on PYTHONPATH of jobs and model servers, for its sitecustomize.py; nothing imports the package."""
