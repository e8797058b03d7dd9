"""Measurements that are run by hand and whose figures the documents quote."""
