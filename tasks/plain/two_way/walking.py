"""Where results were pickled that runs of former versions have stored; Retry still reads them."""

from __future__ import annotations

from tasks.core.sync.two_way.reconcile import ReconcileReport, RecordReport

Told = RecordReport
WalkReport = ReconcileReport
