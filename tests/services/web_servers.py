"""Web servers of Debian's in front of one application, configured as the guide says."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.services.certificate import make_certificate, trusting
from tests.services.missing import program
from tests.services.process import ServerProcess, environment
from tests.services.python import ROOT
from tests.services.service import Service

GUIDE = Path(ROOT) / "docs" / "howto" / "proxies.md"
MODULES = Path("/usr/lib/apache2/modules")


def configuration_of(server: str) -> str:
    """The block that stands under the heading of this server."""
    [block] = re.findall(rf"^## {server}\n.*?^```\w+\n(.*?)^```", GUIDE.read_text(), re.S | re.M)
    return block


class WebServer(Service):
    """Speaks TLS with a certificate of its own, and compresses whatever it can."""

    heading: str
    program: str
    package: str
    scheme = "https"
    replaced: Mapping[str, str]
    """What the configuration has another of in a test: ports, files, and what to compress."""
    before = ""
    """What Debian's packages say in other files."""

    def __init__(self, backend_port: int, pushpin_port: int | None = None) -> None:
        self.name = self.program
        self.path = program(self.program, self.package)
        super().__init__()
        key, certificate = make_certificate(self.directory)
        both = self.directory / "both.pem"
        both.write_bytes(certificate.read_bytes() + key.read_bytes())
        found = {
            "port": self.port,
            "backend_port": backend_port,
            "pushpin_port": pushpin_port,
            "directory": self.directory,
            "modules": MODULES,
            "key": key,
            "certificate": certificate,
            "both": both,
        }
        text = configuration_of(self.heading)
        for documented, own in self.replaced.items():
            assert text.count(documented) == 1, documented
            text = text.replace(documented, own.format(**found))
        self.configuration = self.directory / "configuration"
        self.configuration.write_text(self.before.format(**found) + text)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def launch(self) -> ServerProcess:
        # Caddy would write into the home directory.
        env = environment({"HOME": str(self.directory), "XDG_CONFIG_HOME": "", "XDG_DATA_HOME": ""})
        return ServerProcess([self.path, *self.arguments()], log=self.log, env=env)

    def is_ready(self) -> bool:
        with suppress(OSError):
            request = urllib.request.Request(f"{self.url}/stats/")
            urllib.request.urlopen(request, timeout=2, context=trusting()).read()
            return True
        return False


class Nginx(WebServer):
    heading, program, package = "nginx", "nginx", "nginx-light"
    before = """\
daemon off;
pid {directory}/nginx.pid;
error_log stderr;
"""
    replaced = {
        "127.0.0.1:8000": "127.0.0.1:{backend_port}",
        "listen 443": "listen 127.0.0.1:{port}",
        "/etc/ssl/example.com.pem": "{certificate}",
        "/etc/ssl/example.com.key": "{key}",
        "gzip_types text/css text/javascript application/json": "gzip_types *",
        "http {\n": "http {{\n    access_log off;\n",
    }

    def arguments(self) -> list[str]:
        return ["-p", str(self.directory), "-c", str(self.configuration)]


class Caddy(WebServer):
    heading, program, package = "Caddy", "caddy", "caddy"
    # Otherwise it makes an authority of its own, and the whole machine trust it.
    before = """\
{{
    admin off
    auto_https disable_certs
    default_sni localhost
    skip_install_trust
}}
"""
    replaced = {
        "127.0.0.1:8000": "127.0.0.1:{backend_port}",
        "example.com {\n": "https://127.0.0.1:{port} {{\n    tls {certificate} {key}\n",
        "encode zstd gzip": "encode zstd gzip {{\n match header Content-Type *\n }}",
    }

    def arguments(self) -> list[str]:
        return ["run", "--adapter", "caddyfile", "--config", str(self.configuration)]


class CaddyBeforePushpin(Caddy):
    heading = "In front of Pushpin"
    replaced = {**Caddy.replaced, "127.0.0.1:7999": "127.0.0.1:{pushpin_port}"}


class HAProxy(WebServer):
    heading, program, package = "HAProxy", "haproxy", "haproxy"
    replaced = {
        "127.0.0.1:8000": "127.0.0.1:{backend_port}",
        "bind :443": "bind 127.0.0.1:{port}",
        "/etc/ssl/example.com.pem": "{both}",
        "compression type text/css text/javascript application/json\n": "\n",
    }

    def arguments(self) -> list[str]:
        return ["-db", "-f", str(self.configuration)]


class Apache(WebServer):
    heading, program, package = "Apache", "apache2", "apache2"
    before = """\
ServerRoot {directory}
PidFile {directory}/apache.pid
Mutex file:{directory} default
ErrorLog /dev/stderr
Listen 127.0.0.1:{port} https
LoadModule mpm_event_module {modules}/mod_mpm_event.so
LoadModule authz_core_module {modules}/mod_authz_core.so
LoadModule filter_module {modules}/mod_filter.so
LoadModule socache_shmcb_module {modules}/mod_socache_shmcb.so
LoadModule ssl_module {modules}/mod_ssl.so
LoadModule http2_module {modules}/mod_http2.so
LoadModule headers_module {modules}/mod_headers.so
LoadModule deflate_module {modules}/mod_deflate.so
LoadModule proxy_module {modules}/mod_proxy.so
LoadModule proxy_http_module {modules}/mod_proxy_http.so
"""
    replaced = {
        "127.0.0.1:8000": "127.0.0.1:{backend_port}",
        "*:443": "127.0.0.1:{port}",
        "/etc/ssl/example.com.pem": "{certificate}",
        "/etc/ssl/example.com.key": "{key}",
    }

    def arguments(self) -> list[str]:
        return ["-D", "FOREGROUND", "-f", str(self.configuration)]


class CompressingVarnish(WebServer):
    heading, program, package = "Varnish", "varnishd", "varnish"
    scheme = "http"
    replaced = {'.port = "8000"': '.port = "{backend_port}"'}

    def arguments(self) -> list[str]:
        data = self.data_directory()
        return [
            *("-F", "-f", str(self.configuration), "-a", f"127.0.0.1:{self.port}"),
            *("-n", str(data), "-s", "malloc,16m", "-j", "none", "-T", "none"),
        ]
