"""CodeConnections, and the git repositories that connections lead to: here localcloud is the git host."""
