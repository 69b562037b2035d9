"""Studies beside curation: attribution, learning-rate schedules, poisons."""
