"""PyTorch's own model, optimizer and loader as a learner."""
