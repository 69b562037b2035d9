"""Pages and pictures for people: templates, charts and histograms."""
