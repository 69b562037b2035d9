"""What is done with metagradients besides descent: attribution, metasmoothness, cancelling."""
