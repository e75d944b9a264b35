"""The shipper: the log, tailed and delivered to Elasticsearch, each line once."""
