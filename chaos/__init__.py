"""Faults that serving must survive, each met under steady traffic and judged by offline answers."""
