# SPDX-License-Identifier: Apache-2.0
"""A server of HTTP/2 with OpenAI's API, for tests: answers each request once so many are under way at a time."""

import asyncio
import json
import threading

import h2.config
import h2.connection
import h2.events
from openai_stub import answer_of, completion, text_of


class Http2Server:
    """`with Http2Server(tls) as server:` serves at `server.url`. It holds its answers back until `together` requests
    are there, so that they must share connections or be many."""

    def __init__(self, tls, together=1):
        tls.set_alpn_protocols(["h2", "http/1.1"])
        self.tls, self.together = tls, together
        self.num_connections = 0
        self.answered = []  # texts
        self.waiting = []  # what answers a request
        self.started = threading.Event()

    def __enter__(self):
        threading.Thread(target=lambda: asyncio.run(self.serve()), daemon=True).start()
        self.started.wait()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.stopped.set)

    async def serve(self):
        self.loop, self.stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self.talk, "127.0.0.1", 0, ssl=self.tls)
        self.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self.started.set()
        await self.stopped.wait()

    async def talk(self, reader, writer):
        assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        self.num_connections += 1
        talk = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        talk.initiate_connection()
        bodies = {}
        writer.write(talk.data_to_send())
        while data := await reader.read(1 << 16):
            for event in talk.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                    talk.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    self.take(talk, writer, event.stream_id, json.loads(bodies.pop(event.stream_id)))
            writer.write(talk.data_to_send())
        writer.close()

    def take(self, talk, writer, stream, body):
        self.waiting.append((talk, writer, stream, body))
        if len(self.waiting) < self.together:
            return
        for talk, writer, stream, body in self.waiting:
            self.answered.append(text_of(body))
            answer = json.dumps(completion(body, answer_of(text_of(body)))).encode()
            talk.send_headers(stream, [(":status", "200"), ("content-type", "application/json")])
            talk.send_data(stream, answer, end_stream=True)
            writer.write(talk.data_to_send())
        self.waiting.clear()
