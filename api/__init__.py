"""The REST API of ``contracts/openapi.yaml``. Reads desired state and records, and asks ``operations`` for changes."""
