"""A folder on this machine or on a disk mounted there."""

from __future__ import annotations

from pathlib import Path

from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, field_validator


class LocalFolder(Block):
    """A folder on the machine that runs the flow, or on a network disk mounted there.

    Example:
        List the files that wait in a folder:
        ```python
        from blocks.local_folder import LocalFolder
        from tasks.folders import open_folder

        drop = LocalFolder.load("BLOCK_NAME")
        with open_folder(drop) as folder:
            for file in folder.list_files("incoming"):
                print(file.path, file.size, file.modified_at)
        ```
    """

    _block_type_name = "Local Folder"
    _block_type_slug = "local-folder"

    model_config = ConfigDict(hide_input_in_errors=True)

    path: Path = Field(
        description="Full path of the folder, e.g. '/srv/exchange'; every worker must have it."
    )

    @field_validator("path")
    @classmethod
    def _is_full_path(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("give the full path: workers do not all start in the same folder")
        return value

    @property
    def system(self) -> str:
        """Name of this place in errors, e.g. "file:///srv/exchange"."""
        return f"file://{self.path.as_posix()}"

    def get_client(self) -> Path:
        """Return the folder itself: there is nothing to connect to."""
        return self.path
