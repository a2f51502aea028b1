"""The calls that people make by hand, with curl."""

import json
import subprocess

from calls import ANSWER, QUESTION, check, main


def curl(context, path, body=None, *arguments):
    command = ["curl", "--silent", "--show-error", "--max-time", "300", "-H", f"Authorization: Bearer {context.key}"]
    if body is not None:
        command += ["-H", "content-type: application/json", "--data-binary", "@-"]
    command += [*arguments, f"{context.url}{path}"]
    given = None if body is None else json.dumps(body).encode()
    return subprocess.run(command, input=given, check=True, capture_output=True).stdout.decode()


def chat(context):
    body = {"model": context.model, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0, "max_tokens": 40}
    answer = json.loads(curl(context, "/v1/chat/completions", body))
    check(ANSWER in answer["choices"][0]["message"]["content"], answer)
    events = curl(context, "/v1/chat/completions", {**body, "stream": True}, "--no-buffer").strip().split("\n\n")
    check(events[-1] == "data: [DONE]", events[-1])


def tokens(context):
    cut = json.loads(curl(context, "/tokenize", {"model": context.model, "prompt": QUESTION}))
    check(cut["count"] == len(cut["tokens"]) > 0, cut)
    text = json.loads(curl(context, "/detokenize", {"model": context.model, "tokens": cut["tokens"]}))
    check(text["prompt"] == QUESTION, text)


def about(context):
    check("version" in json.loads(curl(context, "/version")))
    check("server_load" in json.loads(curl(context, "/load")))
    for path in ("/health", "/ping"):
        check(curl(context, path, None, "--output", "-", "--write-out", "%{http_code}").endswith("200"))


def malformed(context):
    for body in (b'{"model":', b"\xff\xfe"):
        command = ["curl", "--silent", "-H", f"Authorization: Bearer {context.key}", "--data-binary", "@-",
                   f"{context.url}/v1/chat/completions"]
        answer = json.loads(subprocess.run(command, input=body, check=True, capture_output=True).stdout)
        check(answer["error"]["type"] == "invalid_request_error", answer)


main("curl", [
    ("chat, stream", chat),
    ("tokenize, detokenize", tokens),
    ("version, load, health, ping", about),
    ("errors: malformed bodies", malformed),
])
