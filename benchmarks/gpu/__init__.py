"""What a GPU does with the engine: figures, transfers, compiled steps, a round."""
