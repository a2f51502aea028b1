"""The calls that users of the `anthropic` package make."""

import anthropic
from calls import ANSWER, QUESTION, TOOL, check, main

ASK = [{"role": "user", "content": QUESTION}]
# The client has no argument for it any more, and the API still has.
GREEDY = {"temperature": 0}
TOOLS = [{"name": TOOL["name"], "description": TOOL["description"], "input_schema": TOOL["parameters"]}]


def client(context, key=None):
    return anthropic.Anthropic(base_url=context.url, api_key=key or context.key, max_retries=0, timeout=300)


def message(context, **extra):
    fields = {"model": context.model, "messages": ASK, "max_tokens": 40, "extra_body": GREEDY, **extra}
    return client(context).messages.create(**fields)


def whole(context):
    answer = message(context)
    check(ANSWER in answer.content[0].text and answer.stop_reason in ("end_turn", "max_tokens"), answer)
    check(answer.usage.input_tokens + answer.usage.cache_read_input_tokens > 0 and answer.usage.output_tokens > 0, answer)


def stream(context):
    text = message(context).content[0].text
    fields = {"model": context.model, "messages": ASK, "max_tokens": 40, "extra_body": GREEDY}
    with client(context).messages.stream(**fields) as events:
        check("".join(events.text_stream) == text)
        final = events.get_final_message()
        check(final.content[0].text == text and final.usage.output_tokens > 0, final)


def system_and_blocks(context):
    blocks = [{"type": "text", "text": QUESTION, "cache_control": {"type": "ephemeral"}}]
    system = [{"type": "text", "text": "You are brief."}]
    check(message(context, system=system, messages=[{"role": "user", "content": blocks}]).content[0].text)


def stops(context):
    answer = message(context, stop_sequences=["Transfer"])
    check(answer.stop_reason == "stop_sequence" and answer.stop_sequence == "Transfer", answer)
    check(message(context, max_tokens=2).stop_reason == "max_tokens")


def count(context):
    counted = client(context).messages.count_tokens(model=context.model, messages=ASK).input_tokens
    usage = message(context).usage
    check(counted == usage.input_tokens + usage.cache_read_input_tokens, (counted, usage))


def tool(context):
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = message(context, messages=ask, tools=TOOLS, tool_choice={"type": "tool", "name": TOOL["name"]}, max_tokens=120)
    use = next(block for block in answer.content if block.type == "tool_use")
    check(use.name == TOOL["name"] and "city" in use.input and answer.stop_reason == "tool_use", answer)
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "Sunny, 21 degrees."}
    ask += [{"role": "assistant", "content": [use.model_dump()]}, {"role": "user", "content": [result]}]
    check(message(context, messages=ask, tools=TOOLS).content)


def tool_stream(context):
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]
    fields = {"model": context.model, "messages": ask, "max_tokens": 120, "extra_body": GREEDY, "tools": TOOLS}
    with client(context).messages.stream(**fields, tool_choice={"type": "any"}) as events:
        final = events.get_final_message()
    check(any(block.type == "tool_use" and "city" in block.input for block in final.content), final)


def errors(context):
    for kind, call in [
        (anthropic.NotFoundError, lambda: message(context, model="none")),
        (anthropic.BadRequestError, lambda: message(context, max_tokens=100000)),
        (anthropic.AuthenticationError, lambda: client(context, "wrong").messages.create(
            model=context.model, messages=ASK, max_tokens=1)),
    ]:
        try:
            call()
        except kind as error:
            check(error.body["type"] == "error" and error.body["error"]["message"], error.body)
        else:
            raise AssertionError(f"no {kind.__name__}")


main("anthropic", [
    ("messages", whole),
    ("messages: stream", stream),
    ("messages: system, blocks", system_and_blocks),
    ("messages: stop_sequences, max_tokens", stops),
    ("messages: count_tokens", count),
    ("messages: tools, with the result sent back", tool),
    ("messages: tools, stream", tool_stream),
    ("errors: model, limits, keys", errors),
])
