"""What more than one function needs: error names, AWS clients, reading images, asking endpoints, the envelope between the functions."""
