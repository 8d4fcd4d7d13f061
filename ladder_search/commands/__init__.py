"""The commands of ``ladder-search``, one file each with ``add_arguments`` and ``run``; ``cli`` lists them.

PyTorch, Ray and MLflow are imported in ``run``, so that ``--help`` and mistakes in the options are reported at once.
"""
