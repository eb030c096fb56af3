"""Readers of data sets, labels and the table of steps that training draws from."""
