"""The calls that users of the `openai` package make."""

import json

import openai
from calls import ANSWER, QUESTION, SCHEMA, TOOL, Unsupported, check, main

ASK = [{"role": "user", "content": QUESTION}]


def client(context, **extra):
    return openai.OpenAI(base_url=f"{context.url}/v1", api_key=context.key, max_retries=0, timeout=300, **extra)


def chat(context, **extra):
    fields = {"model": context.model, "messages": ASK, "max_tokens": 40, "temperature": 0, **extra}
    return client(context).chat.completions.create(**fields)


def models(context):
    ids = [model.id for model in client(context).models.list()]
    check(context.model in ids, ids)
    check(client(context).models.retrieve(context.model).id == context.model)


def chat_whole(context):
    answer = chat(context)
    check(ANSWER in answer.choices[0].message.content, answer)
    check(answer.choices[0].finish_reason in ("stop", "length") and answer.system_fingerprint, answer)
    check(answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, answer.usage)


def chat_stream(context):
    whole = chat(context).choices[0].message.content
    chunks = list(chat(context, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    check(text == whole, text)
    check(chunks[-1].usage.completion_tokens > 0 and not chunks[-1].choices, chunks[-1])


def chat_developer_and_parts(context):
    parts = [{"type": "text", "text": QUESTION}]
    messages = [{"role": "developer", "content": "You are brief."}, {"role": "user", "content": parts}]
    check(chat(context, messages=messages).choices[0].message.content)


def chat_many(context):
    answer = chat(context, n=3, temperature=1, seed=7)
    check([choice.index for choice in answer.choices] == [0, 1, 2], answer)
    again = chat(context, n=3, temperature=1, seed=7)
    texts = lambda whole: [choice.message.content for choice in whole.choices]
    check(texts(answer) == texts(again), answer)


def chat_logprobs(context):
    answer = chat(context, logprobs=True, top_logprobs=3)
    content = answer.choices[0].logprobs.content
    check("".join(entry.token for entry in content).strip() == answer.choices[0].message.content.strip(), content[:3])
    check(all(len(entry.top_logprobs) == 3 and entry.logprob <= 0 for entry in content), content[:3])


def chat_stop_and_limits(context):
    stopped = chat(context, stop=["Transfer"]).choices[0]
    check("Transfer" not in stopped.message.content and stopped.finish_reason == "stop", stopped)
    check(chat(context, max_completion_tokens=3, max_tokens=3).choices[0].finish_reason == "length")


def chat_sampling_fields(context):
    extra = {"top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1, "min_tokens": 2, "cache_salt": "mine", "priority": 1}
    answer = chat(
        context, temperature=0.8, top_p=0.9, presence_penalty=0.1, frequency_penalty=0.1, logit_bias={"5": -10},
        seed=1, user="me", extra_body=extra,
    )
    check(answer.choices[0].message.content)


def chat_vision(context):
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    refused(openai.BadRequestError, lambda: chat(context, messages=[{"role": "user", "content": [part]}]))


def tools(context, **extra):
    ask = [{"role": "user", "content": "What is the weather in Paris?"}]
    return chat(context, messages=ask, tools=[{"type": "function", "function": TOOL}], max_tokens=120, **extra)


def tool_named(context):
    answer = tools(context, tool_choice={"type": "function", "function": {"name": TOOL["name"]}})
    call = answer.choices[0].message.tool_calls[0]
    check(call.function.name == TOOL["name"] and "city" in json.loads(call.function.arguments), call)
    messages = [
        {"role": "user", "content": "What is the weather in Paris?"},
        answer.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 degrees."},
    ]
    check(chat(context, messages=messages, tools=[{"type": "function", "function": TOOL}]).choices[0].message.content)


def tool_required_stream(context):
    name, arguments = "", ""
    for chunk in tools(context, tool_choice="required", stream=True):
        for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            if call.index == 0:
                name, arguments = name + (call.function.name or ""), arguments + (call.function.arguments or "")
    check(name == TOOL["name"] and "city" in json.loads(arguments), (name, arguments))


def tool_auto_and_none(context):
    check(tools(context).choices[0].finish_reason in ("stop", "tool_calls", "length"))
    check(not tools(context, tool_choice="none").choices[0].message.tool_calls)


def tools_parallel(context):
    answer = tools(context, tool_choice="required", parallel_tool_calls=True)
    check(len(answer.choices[0].message.tool_calls) >= 1, answer)
    check(len(tools(context, tool_choice="required", parallel_tool_calls=False).choices[0].message.tool_calls) == 1)


def json_object(context):
    ask = [{"role": "user", "content": "Give me a JSON object about a cat."}]
    answer = chat(context, messages=ask, response_format={"type": "json_object"}, max_tokens=200, temperature=0)
    choice = answer.choices[0]
    check(choice.finish_reason == "length" or isinstance(json.loads(choice.message.content), dict), choice)


def json_schema(context):
    ask = [{"role": "user", "content": "Invent a person."}]
    form = {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}}
    answer = chat(context, messages=ask, response_format=form, max_tokens=120)
    person = json.loads(answer.choices[0].message.content)
    check(set(person) == {"name", "age"} and isinstance(person["age"], int), person)


def structured(kind, value, holds):
    def call(context):
        ask = [{"role": "user", "content": "Say something."}]
        answer = chat(context, messages=ask, extra_body={"structured_outputs": {kind: value}}, max_tokens=40)
        check(holds(answer.choices[0].message.content), answer)

    return call


def completion(context, **extra):
    fields = {"model": context.model, "prompt": "The capital of France is", "max_tokens": 4, "temperature": 0, **extra}
    return client(context).completions.create(**fields)


def completion_forms(context):
    check("Paris" in completion(context).choices[0].text)
    several = completion(context, prompt=["The capital of France is", "The capital of Italy is"], echo=True)
    check([choice.index for choice in several.choices] == [0, 1], several)
    check(several.choices[1].text.startswith("The capital of Italy is"), several)
    check(completion(context, prompt=[1, 2, 3]).usage.prompt_tokens == 3)
    check(len(completion(context, prompt=[[1, 2, 3], [4, 5]]).choices) == 2)
    text = "".join(chunk.choices[0].text for chunk in completion(context, stream=True) if chunk.choices)
    check(text == completion(context).choices[0].text, text)


def completion_logprobs(context):
    told = completion(context, logprobs=2, echo=True).choices[0].logprobs
    check(len(told.tokens) == len(told.token_logprobs) == len(told.text_offset) == len(told.top_logprobs), told)
    check(told.token_logprobs[0] is None and all(value <= 0 for value in told.token_logprobs[1:]), told)


def responses(context):
    answer = client(context).responses.create(model=context.model, input=QUESTION, temperature=0, max_output_tokens=400)
    check(ANSWER in answer.output_text and answer.status in ("completed", "incomplete"), answer)
    with client(context).responses.stream(model=context.model, input=QUESTION, temperature=0, max_output_tokens=400) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        check(text == answer.output_text == stream.get_final_response().output_text, text)


def responses_items(context):
    items = [{"role": "user", "content": [{"type": "input_text", "text": QUESTION}]}]
    answer = client(context).responses.create(model=context.model, input=items, instructions="Be brief.", temperature=0)
    check(answer.output_text and answer.usage.input_tokens > 0, answer)


def responses_tool(context):
    tool = {"type": "function", **TOOL, "strict": True}
    answer = client(context).responses.create(
        model=context.model, input="What is the weather in Paris?", tools=[tool], tool_choice="required", temperature=0,
        max_output_tokens=120,
    )
    call = next(item for item in answer.output if item.type == "function_call")
    check("city" in json.loads(call.arguments), answer)


def responses_state(context):
    create = lambda: client(context).responses.create(model=context.model, input="x", previous_response_id="resp_1")
    refused(openai.BadRequestError, create)
    raise Unsupported("previous_response_id: nothing is stored; a clear 400 says so")


def embeddings(context):
    try:
        client(context).embeddings.create(model=context.model, input=["a", "b"])
    except (openai.NotFoundError, openai.BadRequestError) as error:
        raise Unsupported(f"the served model gives none: {error.status_code}") from error


def refused(kind, call):
    try:
        call()
    except kind as error:
        check(error.body and error.body.get("message"), error)
        return error
    raise AssertionError("it was not refused")


def errors(context):
    check(refused(openai.NotFoundError, lambda: chat(context, model="none")).body["code"] == "model_not_found")
    long = [{"role": "user", "content": "word " * 5000}]
    error = refused(openai.BadRequestError, lambda: chat(context, messages=long))
    check(error.body["code"] == "context_length_exceeded", error.body)
    error = refused(openai.BadRequestError, lambda: chat(context, temperature=9))
    check(error.body["param"] == "temperature", error.body)
    refused(openai.BadRequestError, lambda: chat(context, extra_body={"made_up": 1}))
    wrong = openai.OpenAI(base_url=f"{context.url}/v1", api_key="wrong", max_retries=0)
    refused(openai.AuthenticationError, lambda: list(wrong.models.list()))


def names_and_ignored(context):
    answer = client(context).chat.completions.with_raw_response.create(
        model=context.model, messages=ASK, max_tokens=1, user="me", extra_headers={"x-request-id": "mine-1"}
    )
    check(answer.headers["x-request-id"] == "mine-1" and "user" in answer.headers["x-ignored-params"], answer.headers)


main("openai", [
    ("models: list, retrieve", models),
    ("chat", chat_whole),
    ("chat: stream, usage", chat_stream),
    ("chat: developer role, content parts", chat_developer_and_parts),
    ("chat: n, seed", chat_many),
    ("chat: logprobs, top_logprobs", chat_logprobs),
    ("chat: stop, max_completion_tokens", chat_stop_and_limits),
    ("chat: sampling fields", chat_sampling_fields),
    ("chat: images are refused", chat_vision),
    ("tools: named, with the result sent back", tool_named),
    ("tools: required, stream", tool_required_stream),
    ("tools: auto, none", tool_auto_and_none),
    ("tools: parallel", tools_parallel),
    ("response_format: json_object", json_object),
    ("response_format: json_schema", json_schema),
    ("structured_outputs: choice", structured("choice", ["red", "blue"], lambda text: text in ("red", "blue"))),
    ("structured_outputs: regex", structured("regex", "[0-9]{3}", lambda text: text.isdigit() and len(text) == 3)),
    ("structured_outputs: grammar", structured("grammar", 'start: "yes" | "no"', lambda text: text in ("yes", "no"))),
    ("completions: text, lists, tokens, echo, stream", completion_forms),
    ("completions: logprobs", completion_logprobs),
    ("responses: text, stream", responses),
    ("responses: items, instructions", responses_items),
    ("responses: tools", responses_tool),
    ("responses: previous_response_id", responses_state),
    ("embeddings", embeddings),
    ("errors: model, context, values, fields, keys", errors),
    ("x-request-id, x-ignored-params", names_and_ignored),
])
