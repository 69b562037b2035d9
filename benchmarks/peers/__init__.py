"""The engine beside other libraries' exact metagradients: agreement, memory, time."""
