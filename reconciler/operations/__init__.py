"""What people ask for, and how it becomes a job and a commit."""
