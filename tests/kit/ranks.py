"""Pretending to be one of several processes."""

from ovs_lite import distributed


def as_process(monkeypatch, rank, count):
    """`distributed` believes that this is process `rank` of `count`; no calls between them."""
    monkeypatch.setattr(distributed, "rank", lambda: rank)
    monkeypatch.setattr(distributed, "world_size", lambda: count)
