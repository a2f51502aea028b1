"""The calls that users of the `langchain-openai` package make."""

from calls import ANSWER, QUESTION, SCHEMA, TOOL, check, main
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI


def model(context, **extra):
    fields = {"model": context.model, "base_url": f"{context.url}/v1", "api_key": context.key, "max_retries": 0}
    return ChatOpenAI(**{"temperature": 0, "max_tokens": 120, **fields, **extra})


def invoke(context):
    answer = model(context).invoke([SystemMessage("You are brief."), HumanMessage(QUESTION)])
    check(ANSWER in answer.content and answer.usage_metadata["output_tokens"] > 0, answer)


def stream(context):
    check("".join(chunk.content for chunk in model(context).stream(QUESTION)) == model(context).invoke(QUESTION).content)


def batch(context):
    check(len(model(context).batch([QUESTION, "Name a colour."])) == 2)


def tools(context):
    bound = model(context).bind_tools([{"type": "function", "function": TOOL}], tool_choice="any")
    calls = bound.invoke("What is the weather in Paris?").tool_calls
    check(calls and calls[0]["name"] == TOOL["name"] and "city" in calls[0]["args"], calls)


def structured(context):
    schema = {"title": "Person", "description": "A person.", **SCHEMA}
    person = model(context).with_structured_output(schema, method="json_schema").invoke("Invent a person.")
    check(set(person) == {"name", "age"}, person)


def completion(context):
    llm = OpenAI(model=context.model, base_url=f"{context.url}/v1", api_key=context.key, temperature=0, max_tokens=4)
    check("Paris" in llm.invoke("The capital of France is"))


main("langchain-openai", [
    ("chat: invoke", invoke),
    ("chat: stream", stream),
    ("chat: batch", batch),
    ("chat: bind_tools", tools),
    ("chat: with_structured_output", structured),
    ("completions: invoke", completion),
])
