"""Many processes that train one model together: what each holds, and what passes between them."""
