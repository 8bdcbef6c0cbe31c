"""Backup storage, what is kept in it, and the secrets store."""
