"""Image-text pairs: a CLIP, trained on pictures and captions."""
