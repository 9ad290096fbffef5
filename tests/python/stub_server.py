# SPDX-License-Identifier: Apache-2.0
"""What the tests' HTTP servers share."""

import http.server
import socket
import ssl
import struct
import subprocess


def own_certificate(folder):
    """For a server on the loopback interface: its TLS, with a certificate that nobody vouches for, and that one's
    file."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", key, "-out", certificate]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *files]
    subprocess.run(make, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    return tls, certificate


class StubServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def handle_error(self, request, client_address):
        pass  # a client that went away is what these tests are about


class StubHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    wbufsize = 1 << 16  # head and body of an answer at once: a second packet would wait for the first

    def log_message(self, *_):
        pass

    def reset(self):
        """Breaks the connection, after what was written."""
        self.close_connection = True
        self.wfile.flush()
        # Closing without waiting sends a reset.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RDWR)
