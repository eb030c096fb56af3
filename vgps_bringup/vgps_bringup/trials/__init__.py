"""Does steering help? Plan, journal, runners, statistics and report of interleaved, blind, resumable trials."""
