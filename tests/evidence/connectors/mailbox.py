"""A real mail server (aiosmtpd) on the loopback interface: STARTTLS or TLS, passwords, sizes, refusals."""

import asyncio
import socket
import ssl
import threading
from dataclasses import dataclass, field
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "cavra", "s3cr3t-p\u00e4ss word"


@dataclass
class Told:
    """One message that the server took over."""

    sender: str
    recipients: list[str]
    content: bytes
    encrypted: bool
    user: str


@dataclass
class Mailbox:
    """Runs until ``stop``. ``refused`` are recipients it does not know; ``answer`` what it says to the final dot."""

    tls: ssl.SSLContext
    implicit: bool = False
    with_password: bool = False
    size: int = 2**21
    refused: dict[str, str] = field(default_factory=dict)
    answer: str = "250 2.0.0 queued as 4711"
    messages: list[Told] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._transports: list[asyncio.Transport] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._server = self._loop.run_until_complete(
            self._loop.create_server(
                self._protocol, sock=self._socket, ssl=self.tls if self.implicit else None
            )
        )
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def url(self, host: str = "localhost") -> str:
        return f"{'smtps' if self.implicit else 'smtp'}://{host}:{self.port}"

    def stop(self) -> None:
        async def close() -> None:
            self._server.close()
            await _rounds()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for transport in self._transports:
                transport.abort()
            await _rounds()
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(close(), self._loop)
        self._thread.join(60)
        self._loop.close()

    # --- what aiosmtpd calls ------------------------------------------------------------------------------

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.original_content or b""
        user = session.auth_data.login.decode() if session.auth_data else ""
        if self.answer.startswith("2"):
            encrypted = session.ssl is not None or self.implicit
            self.messages.append(Told(envelope.mail_from or "", envelope.rcpt_tos, content, encrypted, user))
        return self.answer

    def _protocol(self) -> SMTP:
        options: dict[str, Any] = {}
        if not self.implicit:
            options = {"tls_context": self.tls, "require_starttls": True}
        return _Connection(
            self._transports,
            self,
            hostname="mail.example",
            ident="test",
            loop=self._loop,
            data_size_limit=self.size,
            authenticator=_authenticated,
            # Over TLS from the start it does not see that there is any, and would warn.
            auth_required=self.with_password and not self.implicit,
            auth_require_tls=not self.implicit,
            **options,
        )


async def _rounds() -> None:
    """Let the loop do what was put off: a connection that was just accepted, one under TLS that is given up."""
    for _ in range(5):
        await asyncio.sleep(0)


class _Connection(SMTP):
    """Notes its transports: the server itself forgets them before they are closed."""

    def __init__(self, transports: list[asyncio.Transport], *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._transports = transports

    def connection_made(self, transport: Any) -> None:
        self._transports.append(transport)
        # One under TLS that was closed twice ends what carries it no more, and waits for the other side's goodbye.
        if tls := getattr(transport, "_ssl_protocol", None):
            self._transports.append(tls._transport)
        super().connection_made(transport)


def _authenticated(
    _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any
) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (
        USER.encode(),
        PASSWORD.encode(),
    )
    return AuthResult(success=good, handled=False, auth_data=data)
