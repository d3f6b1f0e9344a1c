"""Celery's doorways into the orchestrator. An `if` belongs one floor down."""
