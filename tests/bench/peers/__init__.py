"""Eastway beside Envoy, HAProxy and nginx: `make bench`.

Each round starts every peer afresh, one after the other, in an order that turns around from round to round, sends the same
loads through it, and reads from /proc what its processes used. Ratios are taken within a round. Never: touching what runs
beside it; everything happens in a network namespace of its own, and only processes that were started here are ended.
"""
