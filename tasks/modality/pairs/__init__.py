"""Image-text pairs for a CLIP."""
