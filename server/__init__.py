"""The coordinator: only ever sees messages."""
