"""Abstention: says of films for which the network's answer is not to be relied on."""
