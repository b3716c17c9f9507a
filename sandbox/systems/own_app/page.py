"""The page at `/` on which people watch the data arrive and make the application misbehave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import orjson

from sandbox.systems.own_app.behaviour import Behaviour
from sandbox.systems.own_app.records import RESOURCES, Resource
from sandbox.systems.own_app.request_log import LoggedRequest, RequestLog
from sandbox.systems.own_app.store import Row, Store

_SHOWN_ROWS = 50
_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="5">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Own app</title><link rel="icon" href="data:,">
<style>
body { font: 14px/1.45 system-ui, sans-serif; margin: 1.5rem 2rem; color: #1c2330; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
h2 small { font-weight: normal; color: #5b6577; }
div { overflow-x: auto; max-height: 24rem; overflow-y: auto; border: 1px solid #d8dde6; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid #eceff4; }
th { position: sticky; top: 0; background: #f4f6fa; white-space: nowrap; }
td { max-width: 22rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.bad { color: #b3261e; } button { margin-right: .4rem; }
@media (prefers-color-scheme: dark) {
 body { background: #14181f; color: #dde3ee; } th { background: #1f2530; }
 div, th, td { border-color: #2c3443; } .bad { color: #ff8a80; } h2 small { color: #9aa5b8; }
}
</style></head><body>
<h1>Own app</h1>
<p>The application that the integrations import into and export from. The page reloads itself.</p>
"""
_SWITCHES = {
    "Behave": {"mode": "ok"},
    "Fail 20 requests": {"mode": "error", "status": 500, "remaining": 20},
    "Fail until mended": {"mode": "error", "status": 500},
    "Be slow (2 s)": {"mode": "slow", "delay_s": 2},
    "Refuse 5 as too many": {"mode": "rate_limit", "retry_after_s": 2, "remaining": 5},
    "Cut 5 answers": {"mode": "drop_connection", "applied": True, "remaining": 5},
}
_SCRIPT = """<script>
for (const button of document.querySelectorAll("button"))
  button.onclick = () => fetch("/sandbox/behaviour", {method: "PUT", body: button.value})
    .then(() => location.reload());
</script></body></html>
"""


def render_page(store: Store, log: RequestLog, behaviour: Behaviour) -> str:
    """The whole page; it needs nothing from any network."""
    parts = [_HEAD, _behaviour(behaviour)]
    for resource in RESOURCES.values():
        rows = store.latest(resource.name, _SHOWN_ROWS)
        parts.append(_records(resource, store.count(resource.name), rows))
    parts += [_requests(log.last(_SHOWN_ROWS)), _SCRIPT]
    return "".join(parts)


def _behaviour(behaviour: Behaviour) -> str:
    buttons = "".join(
        f'<button value="{escape(orjson.dumps(switch).decode())}">{escape(label)}</button>'
        for label, switch in _SWITCHES.items()
    )
    remaining = "" if behaviour.remaining is None else f", {behaviour.remaining} requests left"
    return f"<p>Behaviour: <b>{behaviour.mode}</b>{remaining}</p><p>{buttons}</p>"


def _records(resource: Resource, count: int, rows: Sequence[Row]) -> str:
    columns = [*resource.columns, "changed_at"]
    cells = ([orjson.loads(row.json()).get(column) for column in columns] for row in rows)
    return _table(resource.name.capitalize(), f"{count:,} stored", columns, cells)


def _requests(requests: Sequence[LoggedRequest]) -> str:
    columns = ["at", "method", "path", "status", "records", "idempotency_key", "replayed", "ms"]
    cells = (
        [
            request.at,
            request.method,
            request.path,
            request.status or "connection cut",
            request.records,
            request.idempotency_key,
            "yes" if request.replayed else "",
            request.duration_ms,
        ]
        for request in requests
    )
    return _table("Requests", f"the last {len(requests)}", columns, cells)


def _table(title: str, note: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    return (
        f"<h2>{title} <small>{note}</small></h2>"
        f"<div><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: object) -> str:
    if value is None:
        return "<td></td>"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f'<td class="number">{value}</td>'
    if isinstance(value, list):
        value = f"{len(value)} lines"
    return f"<td>{escape(str(value))}</td>"
