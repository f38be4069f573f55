"""Varnish in front of one server, with the VCL that it has when nobody writes another."""

from __future__ import annotations

from tests.services.missing import program
from tests.services.process import ServerProcess
from tests.services.pushpin import answers
from tests.services.service import Service


class Varnish(Service):
    """Keeps what it may for two minutes, unless the answer says for how long."""

    name = "varnish"

    def __init__(self, backend_port: int, port: int | None = None) -> None:
        self.program = program("varnishd", "varnish")
        super().__init__(port)
        self.backend_port = backend_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> ServerProcess:
        options = {
            "-a": f"127.0.0.1:{self.port}",
            "-b": f"127.0.0.1:{self.backend_port}",
            "-n": str(self.data_directory()),
            "-s": "malloc,16m",
            # It changes no user: there may be none to change to. And nobody gives it commands.
            "-j": "none",
            "-T": "none",
        }
        arguments = [word for option in options.items() for word in option]
        return ServerProcess([self.program, "-F", *arguments], log=self.log)

    def is_ready(self) -> bool:
        """Its port opens before it has a VCL; an answer is one, even a 503."""
        return answers(f"{self.url}/is-anybody-there/")
