"""The launcher's commands: work pools remember them, so they keep their names."""
