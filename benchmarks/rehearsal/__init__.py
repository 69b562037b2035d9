"""A dress rehearsal of a DataComp submission: `__main__` says what is done and checked."""
