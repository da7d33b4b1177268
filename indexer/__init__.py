"""The indexer: receives blocks, enriches their lines, stores them; and reads them back."""
