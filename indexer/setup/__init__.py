"""Makes a cluster, and a Kibana, ready: what ``auditship setup`` does."""
