"""Forges that are told what became of their commits, and asked to open requests: GitHub, GitLab, Gitea and Forgejo."""
