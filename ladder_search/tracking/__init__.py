"""Tracking: a spool on disk, and a separate process that sends it to MLflow.

Start reading at ``protocol.py`` (what callers see), then ``spool_tracker.py``, ``spool.py``, ``courier.py``,
``mlflow_store.py``. ``writer.sync`` is not imported here, because ``python -m ladder_search.tracking.writer`` runs it.
"""

from ladder_search.tracking.protocol import DatasetInput, MetricPoint, NullTracker, RunStatus, Tracker
from ladder_search.tracking.spool_tracker import SpoolTracker

__all__ = ["DatasetInput", "MetricPoint", "NullTracker", "RunStatus", "SpoolTracker", "Tracker"]
