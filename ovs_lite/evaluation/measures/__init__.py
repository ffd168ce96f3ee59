"""Measurements that single claims of the papers need."""
