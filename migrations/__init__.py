"""Schema changes of the catalog and of all nodes: plain SQL, numbered, in two phases around a deployment.

``python -m migrations apply`` brings every database up to date; `README.md` here says how to write a migration.
"""
