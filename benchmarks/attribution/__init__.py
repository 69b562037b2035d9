"""Attribution against retrained models, beside the peers' methods."""
