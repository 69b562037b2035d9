"""DataComp's submission folder."""
