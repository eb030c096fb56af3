"""Recorded episodes under other critics, K and beta; recordings of other software."""
