"""What is recorded when, and recordings played back to the live system."""
