"""An IMAP mailbox and its login."""

from __future__ import annotations

from prefect.blocks.core import Block

from blocks.connections.imap import ImapConnection


class ImapMailbox(ImapConnection, Block):
    """A mailbox on an IMAP server.

    Example:
        List the subjects of unread mails:
        ```python
        from blocks.imap_mailbox import ImapMailbox

        mailbox = ImapMailbox.load("BLOCK_NAME").get_client()
        mailbox.folder.set("INBOX")
        print([mail.subject for mail in mailbox.fetch("UNSEEN", mark_seen=False)])
        mailbox.logout()
        ```
    """

    _block_type_name = "IMAP Mailbox"
    _block_type_slug = "imap-mailbox"
