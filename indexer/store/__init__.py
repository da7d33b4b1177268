"""The stores: one contract (:mod:`indexer.store.contract`), two implementations."""
