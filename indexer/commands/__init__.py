"""The indexer's commands, one file each."""
