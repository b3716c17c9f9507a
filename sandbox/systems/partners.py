"""The partners who drop files for us: stock lists, orders, catalogues, contacts, price sheets.

Each writes the way real partners do: another format, another language's numbers, and a bad row
now and then.
"""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from xml.sax.saxutils import escape

from tasks.core.connectors.folders.protocol import RemoteFolder

_WORDS = (
    "Widget", "Gadget", "Sprocket", "Flange", "Bracket", "Coupling", "Bearing", "Valve",
    "Gasket", "Spindle", "Bushing", "Washer", "Hinge", "Pulley", "Lever", "Grommet",
)  # fmt: skip
_NAMES = (
    "Ada Okafor", "Bruno Marques", "Chloé Lefèvre", "Dmitri Ivanov", "Elif Yıldız", "Fatima Zahra",
    "Günther Groß", "Haruka Satō", "Ines Álvarez", "Jakub Nowák",
)  # fmt: skip
_COMPANIES = ("Northwind", "Blue Harbour", "Kestrel & Sons", "Zephyr", "Ostrava Steel")

FileMaker = Callable[[random.Random, datetime], bytes]


def stock_list(chance: random.Random, at: datetime) -> bytes:
    """A warehouse's stock as CSV: semicolons, decimal commas, Windows-1252, leading zeros."""
    lines = ["Item No;Name;On hand;Warehouse;Unit price;Currency"]
    for number in chance.sample(range(400), 60):
        price = f"{chance.randint(1, 1500)},{chance.randint(0, 99):02}"
        name = f"{_WORDS[number % len(_WORDS)]} Größe {number % 9 + 1}"
        lines.append(f"{number:06};{name};{chance.randint(0, 900)};Köln;{price};EUR")
    if at.minute % 4 == 0:
        lines.append("000999;Miscounted;minus two;Köln;1,00;EUR")
    return "\r\n".join(lines).encode("cp1252")


def order_lines(chance: random.Random, at: datetime) -> bytes:
    """A marketplace's orders as gzipped JSON Lines."""
    lines = []
    for number in range(40):
        total = Decimal(0)
        ordered = []
        for _ in range(chance.randint(1, 4)):
            quantity, price = chance.randint(1, 9), Decimal(f"{chance.randint(1, 90)}.50")
            total += quantity * price
            sku = f"{chance.randrange(400):06}"
            ordered.append({"sku": sku, "quantity": quantity, "unit_price": str(price)})
        order = {
            "order_no": f"M-{at:%m%d%H%M%S}-{number:03}",
            "customer": chance.choice(_NAMES),
            "ordered_at": (at - timedelta(minutes=chance.randint(1, 90))).isoformat(),
            "status": "paid",
            "total": str(total),
            "currency": "EUR",
            "lines": ordered,
        }
        lines.append(json.dumps(order, ensure_ascii=False))
    return gzip.compress("\n".join(lines).encode())


def catalogue(chance: random.Random, _at: datetime) -> bytes:
    """A supplier's catalogue as an Excel workbook."""
    import xlsxwriter

    content = io.BytesIO()
    workbook = xlsxwriter.Workbook(content, {"in_memory": True})
    sheet = workbook.add_worksheet("Catalogue")
    sheet.write_row(0, 0, ["SKU", "Name", "Description", "Price", "Currency", "Active"])
    for row, number in enumerate(chance.sample(range(400), 50), start=1):
        word = _WORDS[number % len(_WORDS)]
        price = chance.randint(100, 90_000) / 100
        sheet.write_string(row, 0, f"{number:06}")
        sheet.write_row(row, 1, [f"{word} {number}", f"{word}, zinc plated", price, "EUR"])
        sheet.write_boolean(row, 5, chance.random() > 0.1)
    workbook.close()
    return content.getvalue()


def contact_export(chance: random.Random, _at: datetime) -> bytes:
    """A CRM's contacts as XML with a namespace."""
    contacts = []
    for number in chance.sample(range(200), 25):
        name = _NAMES[number % len(_NAMES)]
        email = f"{name.split()[0].lower()}.{number}@example.com".encode("ascii", "ignore").decode()
        company = escape(_COMPANIES[number % len(_COMPANIES)])
        contacts.append(
            f'  <contact id="C-{number:04}">\n    <name>{name}</name>\n'
            f"    <email>{email}</email>\n    <phone>+49 221 {number:06}</phone>\n"
            f"    <company>{company}</company>\n  </contact>"
        )
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<contacts xmlns="urn:example:crm">\n'
    return (head + "\n".join(contacts) + "\n</contacts>\n").encode()


def count_sheet(chance: random.Random, _at: datetime) -> bytes:
    """A stock count printed as PDF, its table running over two pages."""
    from reportlab.lib.pagesizes import A4
    from reportlab.platypus import SimpleDocTemplate, Table, TableStyle

    rows = [["sku", "name", "quantity", "warehouse"]]
    for number in chance.sample(range(400), 60):
        word = _WORDS[number % len(_WORDS)]
        rows.append([f"{number:06}", f"{word} {number}", str(chance.randint(0, 90)), "Lager 2"])
    content = io.BytesIO()
    table = Table(rows, repeatRows=1)
    table.setStyle(TableStyle([("GRID", (0, 0), (-1, -1), 0.5, "black")]))
    SimpleDocTemplate(content, pagesize=A4, title="Stock count").build([table])
    return content.getvalue()


# who drops what: place → (file name with the time, how it is made)
PARTNERS: Mapping[str, tuple[tuple[str, FileMaker], ...]] = {
    "sftp": (("incoming/stock-{time}.csv", stock_list),),
    "s3": (("incoming/orders-{time}.jsonl.gz", order_lines),),
    "dropbox": (("incoming/catalogue {time}.xlsx", catalogue),),
    "local": (
        ("contacts/contacts-{time}.xml", contact_export),
        ("counts/count-{time}.pdf", count_sheet),
    ),
}


def drop_files(folders: Mapping[str, RemoteFolder], *, at: datetime | None = None) -> list[str]:
    """Let every partner drop its files once, over the real protocols.

    Args:
        folders: Place name, as in `PARTNERS`, to an open folder.
        at: The time in the names and the seed of the content; None for now.

    Returns:
        What was dropped, as place and path.
    """
    at = at or datetime.now(UTC)
    chance = random.Random(at.isoformat())
    dropped = []
    for place, folder in folders.items():
        for template, make in PARTNERS[place]:
            content = make(chance, at)
            path = template.format(time=f"{at:%Y%m%d-%H%M%S}")
            folder.put(path, io.BytesIO(content), size=len(content))
            dropped.append(f"{place}: {path}")
    return dropped
