"""Deploys an approved model version, and takes a rejected one out of production."""
