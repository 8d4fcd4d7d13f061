"""The commands of ``ladder-search``, one file each with ``add_arguments`` and ``run``; ``cli`` has the list.

What imports PyTorch, Ray or MLflow is imported in ``run``: ``--help`` and a mistake in the options do not wait for it.
"""
