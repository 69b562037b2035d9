"""Pictures and captions in any usual form, as WebDataset shards the way img2dataset leaves them."""
