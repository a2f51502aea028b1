#!/usr/bin/env python3
"""A server of OpenAI's completions around mistral.rs, whose wheel has none: as little as a measurement takes.

usage: mistral_server.py <model.gguf> <port> <requests at a time>
"""

import itertools
import json
import pathlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mistralrs import ChatCompletionRequest, Runner, Which

MODEL, PORT, AT_ONCE = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
RUNNER = Runner(
    which=Which.GGUF(quantized_model_id=str(MODEL.parent), quantized_filename=MODEL.name),
    max_seqs=AT_ONCE,
    # Prompts differ, so that looking for equal ones would only cost.
    prefix_cache_n=0,
    token_source="none",
)
# The runner takes one request at a time. Prompts that it reads together make it fail ("input tensor is not contiguous",
# 0.9.5 on CPU), so the next is sent when the last has its first token; the answers go on at the same time.
SENDING = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        body = json.dumps({"data": [{"id": MODEL.stem}]}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = ChatCompletionRequest(
            # Only chats stream; the template's tokens count as the prompt's.
            messages=[{"role": "user", "content": body["prompt"]}],
            model="default",
            max_tokens=body["max_tokens"],
            temperature=0.0,
            stream=True,
            ignore_eos=True,
        )
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        with SENDING:
            chunks = iter(RUNNER.send_chat_completion_request(request))
            first = next(chunks)
        for chunk in itertools.chain([first], chunks):
            choice = chunk.choices[0]
            event = {"choices": [{"text": choice.delta.content or "", "finish_reason": choice.finish_reason}]}
            if chunk.usage:
                event["usage"] = {
                    "prompt_tokens": chunk.usage.prompt_tokens,
                    "completion_tokens": chunk.usage.completion_tokens,
                }
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
