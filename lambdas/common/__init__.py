"""What more than one function needs: error names, AWS clients, reading images, the envelope between the functions."""
