"""What brings nodes to what Git says: who does the jobs, when, and with what."""
