"""What the agent and the indexer share: the line, the block, the settings, the command line."""

__version__ = "0.1.0"
