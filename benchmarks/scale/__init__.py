"""What the path of the data costs a sample, as pools grow."""
