"""AWS CodeBuild: buildspecs run as processes of this machine."""
