# SPDX-License-Identifier: Apache-2.0
"""An S3 server on the loopback interface for tests: objects in memory, atomic conditions, signatures checked, and
faults as a bad day brings them. Speaks what Millstream uses of the protocol, and nothing else."""

import base64
import email.utils
import hashlib
import hmac
import random
import re
import threading
import time
import urllib.parse
from xml.sax.saxutils import escape

from stub_server import StubHandler, StubServer

KEY_ID, SECRET, REGION = "test-key-id", "test/secret+key", "eu-test-1"

# What may happen to a request, with its weight. Those that answer late are few, so that a run takes no hours.
# Bytes damaged on the way can only be noticed where there is a checksum: in whole objects, not in ranges of them.
FAULTS = {
    "unavailable": 6,  # 500, 503 or 429: not done
    "reset": 4,  # the connection breaks before anything was done
    "lost_answer": 6,  # it breaks after all was done
    "cut_body": 4,  # the answer ends before the length it gave
    "no_length": 2,  # the answer ends early, and gave no length
    "damaged": 4,  # the bytes are others than were stored, or sent
    "conflict": 2,  # 409, of a PUT
    "stale_list": 3,  # a listing without what came last
    "late": 0.3,  # later than the client waits, after all was done
}


class Object:
    def __init__(self, body, metadata):
        self.body = body
        self.metadata = metadata
        self.etag = '"' + hashlib.md5(body).hexdigest() + '"'
        self.sha256 = base64.b64encode(hashlib.sha256(body).digest()).decode()
        self.modified = time.time()


class Server(StubServer):
    """`with Server(...) as server:` serves at `server.url` until the block ends."""

    def __init__(
        self, buckets=("bucket",), faults=0.0, seed=0, late_s=4, honours_conditions=True, tls=None, without=()
    ):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "https" if tls else "http"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.buckets = {name: {} for name in buckets}
        self.faults, self.late_s, self.honours_conditions = faults, late_s, honours_conditions
        self.random = random.Random(seed)
        self.lock = threading.Lock()  # of all below and the buckets: it makes conditions atomic
        self.num_requests = 0
        self.num_faults = dict.fromkeys(FAULTS, 0)
        self.kinds = {fault: weight for fault, weight in FAULTS.items() if fault not in without}
        self.first_bodies = {}  # what stood first under each key below parts/, and whether it ever changed
        self.changed_parts = []
        self.refused_signatures = []
        self.call_before = {}
        self.stopped = threading.Event()

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    @property
    def environment(self):
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.shutdown()
        self.server_close()

    def call_at(self, number, act):
        """Calls `act` before request `number` from now, counted from 1."""
        self.call_before = {self.num_requests + number: act}

    def draw_fault(self):
        with self.lock:
            self.num_requests += 1
            act = self.call_before.pop(self.num_requests, lambda: None)
        act()
        with self.lock:
            if self.random.random() >= self.faults:
                return None
            fault = self.random.choices(list(self.kinds), list(self.kinds.values()))[0]
            self.num_faults[fault] += 1
            return fault


def signature(secret, date, region, to_sign):
    key = ("AWS4" + secret).encode()
    for part in (date, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


class Handler(StubHandler):
    def do_GET(self):
        self.serve()

    do_HEAD = do_PUT = do_DELETE = do_GET

    def serve(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        fault = self.server.draw_fault()
        if fault == "reset":
            return self.reset()
        if fault == "unavailable":
            status, code = self.server.random.choice([(500, "InternalError"), (503, "SlowDown"), (429, "TooMany")])
            return self.answer_error(status, code)
        if fault == "damaged" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        problem = self.check_signature(body)
        if problem:
            if fault != "damaged":
                self.server.refused_signatures.append(problem)
            code = "XAmzContentSHA256Mismatch" if problem == "body" else "SignatureDoesNotMatch"
            return self.answer_error(400 if problem == "body" else 403, code)
        path, _, query = self.path.partition("?")
        bucket, _, key = urllib.parse.unquote(path).lstrip("/").partition("/")
        if bucket not in self.server.buckets:
            return self.answer_error(404, "NoSuchBucket")
        if self.command == "PUT":
            self.put(self.server.buckets[bucket], key, body, fault)
        elif self.command == "DELETE":
            with self.server.lock:
                self.server.buckets[bucket].pop(key, None)
            self.answer(204, {}, b"", fault)
        elif key:
            self.get(self.server.buckets[bucket], key, fault)
        else:
            self.list(self.server.buckets[bucket], dict(urllib.parse.parse_qsl(query)), fault)

    def check_signature(self, body):
        """Returns what is wrong with the request's signature (AWS Signature Version 4), or None."""
        given = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/s3/aws4_request, "
            r"SignedHeaders=([^,]+), Signature=([0-9a-f]{64})",
            self.headers.get("authorization", ""),
        )
        if not given:
            return "no signature"
        key_id, date, region, signed, found = given.groups()
        names = signed.split(";")
        sent = {name.lower() for name in self.headers if name.lower().startswith(("x-amz-", "host"))}
        if key_id != KEY_ID or region != REGION or names != sorted(names) or not sent <= set(names):
            return f"key, region or headers: {key_id} {region} {names}"
        path, _, query = self.path.partition("?")
        headers = "".join(f"{name}:{' '.join(self.headers.get(name, '').split())}\n" for name in names)
        canonical_query = "&".join(sorted(query.split("&")))
        content = self.headers.get("x-amz-content-sha256", "")
        request = "\n".join([self.command, path, canonical_query, headers, signed, content])
        moment = self.headers.get("x-amz-date", "")
        scope = f"{date}/{region}/s3/aws4_request"
        to_sign = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()])
        if not moment.startswith(date) or signature(SECRET, date, region, to_sign) != found:
            return f"signature of {request!r}"
        if hashlib.sha256(body).hexdigest() != content:
            return "body"
        checksum = self.headers.get("x-amz-checksum-sha256")
        if checksum and base64.b64encode(hashlib.sha256(body).digest()).decode() != checksum:
            return "body"
        return None

    def put(self, objects, key, body, fault):
        if fault == "conflict":
            return self.answer_error(409, "ConditionalRequestConflict")
        metadata = {n.lower(): v for n, v in self.headers.items() if n.lower().startswith("x-amz-meta-")}
        new = Object(body, metadata)
        with self.server.lock:
            stands = objects.get(key)
            must_match = self.headers.get("if-match")
            if self.server.honours_conditions:
                if self.headers.get("if-none-match") == "*" and stands:
                    return self.answer_error(412, "PreconditionFailed")
                if must_match and not stands:
                    return self.answer_error(404, "NoSuchKey")
                if must_match and stands.etag != must_match:
                    return self.answer_error(412, "PreconditionFailed")
            objects[key] = new
            if "/parts/" in f"/{key}" and self.server.first_bodies.setdefault(key, body) != body:
                self.server.changed_parts.append(key)
        self.answer(200, {"ETag": new.etag}, b"", fault)

    def get(self, objects, key, fault):
        with self.server.lock:
            found = objects.get(key)
        if not found:
            return self.answer_error(404, "NoSuchKey")
        if self.headers.get("if-match", found.etag) != found.etag:
            return self.answer_error(412, "PreconditionFailed")
        headers = {"ETag": found.etag, "Last-Modified": email.utils.formatdate(found.modified, usegmt=True)}
        headers.update(found.metadata)
        body, status = found.body, 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2]), len(body) - 1)
            if first > last:
                return self.answer_error(416, "InvalidRange")
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            body, status = body[first : last + 1], 206
        elif self.headers.get("x-amz-checksum-mode") == "ENABLED":
            headers["x-amz-checksum-sha256"] = found.sha256
            if fault == "damaged" and body:
                body = body[:-1] + bytes([body[-1] ^ 1])
        self.answer(status, headers, body, fault)

    def list(self, objects, query, fault):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        encode = urllib.parse.quote_plus if query.get("encoding-type") == "url" else escape
        with self.server.lock:
            keys = [key for key in objects if key.startswith(prefix)]
            if fault == "stale_list":
                keys = keys[:-2]  # as they came
            found = {key: objects[key] for key in sorted(keys)}
        entries, seen = [], set()
        for key, stored in found.items():
            below = key[len(prefix) :].partition("/")
            if delimiter and below[1]:
                folder = prefix + below[0] + "/"
                if folder not in seen:
                    entries.append((folder, f"<CommonPrefixes><Prefix>{encode(folder)}</Prefix></CommonPrefixes>"))
                seen.add(folder)
                continue
            tag, size = escape(stored.etag), len(stored.body)
            contents = f"<Key>{encode(key)}</Key><ETag>{tag}</ETag><Size>{size}</Size>"
            entries.append((key, f"<Contents>{contents}</Contents>"))
        after = query.get("continuation-token", "")
        page = [entry for entry in entries if entry[0] > after]
        more = "<IsTruncated>false</IsTruncated>"
        if len(page) > 100:
            page = page[:100]
            token = escape(page[-1][0])
            more = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
        text = "".join(xml for _, xml in page) + more
        if encode is not escape:
            text += "<EncodingType>url</EncodingType>"
        text = f"<ListBucketResult>{text}</ListBucketResult>"
        self.answer(200, {"Content-Type": "application/xml"}, text.encode(), fault)

    def answer_error(self, status, code):
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self.answer(status, {}, b"" if self.command == "HEAD" else body, None)

    def answer(self, status, headers, body, fault):
        """Sends an answer, or does with it what the fault says; the request has been done by now."""
        if fault == "late":
            self.server.stopped.wait(self.server.late_s)
        if fault in ("lost_answer", "late"):
            return self.reset()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        cut = fault == "cut_body" and len(body) > 1
        no_length = fault == "no_length" and len(body) > 1 and self.command == "GET"
        if no_length:
            self.send_header("Connection", "close")
            self.close_connection = True
        elif status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut or no_length else body)
        if cut:
            self.reset()
