"""Reports: a run's results, evidence and pictures on one page."""
