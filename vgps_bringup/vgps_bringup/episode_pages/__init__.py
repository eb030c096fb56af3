"""One recorded or running episode for people: page, plots, overlay, video, latency."""
