"""Reports: a run's results, data and pictures on one page."""
