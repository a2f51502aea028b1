"""The calls that users of the `litellm` package make."""

import json
import os

# What models cost is nothing that it has to ask the internet for.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402, it reads the environment as it is loaded
from calls import ANSWER, QUESTION, SCHEMA, TOOL, check, main

litellm.suppress_debug_info = True
ASK = [{"role": "user", "content": QUESTION}]


def chat(context, **extra):
    fields = {"model": f"openai/{context.model}", "api_base": f"{context.url}/v1", "api_key": context.key}
    return litellm.completion(**{"messages": ASK, "max_tokens": 120, "temperature": 0, **fields, **extra})


def whole(context):
    answer = chat(context)
    check(ANSWER in answer.choices[0].message.content and answer.usage.total_tokens > 0, answer)


def stream(context):
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chat(context, stream=True))
    check(text == chat(context).choices[0].message.content, text)


def tools(context):
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = chat(context, messages=ask, tools=[{"type": "function", "function": TOOL}], tool_choice="required")
    check("city" in json.loads(answer.choices[0].message.tool_calls[0].function.arguments), answer)


def json_schema(context):
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    answer = chat(context, messages=[{"role": "user", "content": "Invent a person."}], response_format=form)
    check(set(json.loads(answer.choices[0].message.content)) == {"name", "age"}, answer)


def text(context):
    answer = litellm.text_completion(
        model=f"text-completion-openai/{context.model}", api_base=f"{context.url}/v1", api_key=context.key,
        prompt="The capital of France is", max_tokens=4, temperature=0,
    )
    check("Paris" in answer.choices[0].text, answer)


def anthropic(context):
    answer = litellm.completion(
        model=f"anthropic/{context.model}", api_base=context.url, api_key=context.key, messages=ASK, max_tokens=40,
        temperature=0,
    )
    check(ANSWER in answer.choices[0].message.content, answer)


def errors(context):
    try:
        chat(context, messages=[{"role": "user", "content": "word " * 5000}])
    except litellm.BadRequestError:
        return
    raise AssertionError("it was not refused")


main("litellm", [
    ("chat", whole),
    ("chat: stream", stream),
    ("chat: tools", tools),
    ("chat: json_schema", json_schema),
    ("completions", text),
    ("messages", anthropic),
    ("errors: context", errors),
])
