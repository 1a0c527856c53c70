#!/usr/bin/python
# SPDX-License-Identifier: Apache-2.0
"""Load an OpenAI-compatible server and tell how fast it answers, and whether that is enough."""

from __future__ import annotations

DOCUMENTATION = r"""
module: serving_benchmark
short_description: Load an OpenAI-compatible server and judge throughput and latency
description:
  - Sends streaming requests to a running server of any engine at the times an arrival process gives (open loop), and
    reports throughput, goodput and latencies under the names and by the formulas of C(vllm bench serve).
  - Judges each rate against goals. A load in which a request failed never passes.
  - Needs nothing but Python on the host that runs it, which is the client. It changes nothing, and it is a load for
    everybody who uses the server.
  - What the numbers mean is in C(docs/serving-benchmark.md).
options:
  url:
    description:
      - Where the API is, like V(http://gpu-01:8000). C(/v1) is added when it does not end so. Required unless
        O(results) is set. Proxies of the environment are not used.
    type: str
  endpoint:
    description: Whether prompts go to C(/chat/completions) or to C(/completions).
    type: str
    choices: [chat, completions]
    default: chat
  model:
    description: Name of the model; the first that the server lists by default.
    type: str
  api_key:
    description: Key that is sent as a bearer token.
    type: str
  validate_certs:
    description: Whether the certificate of an https server is checked.
    type: bool
    default: true
  ca_path:
    description: File or directory with the certificates of the authority that signed the server's, in PEM form.
    type: path
  rates:
    description:
      - Requests per second, one load after the other. V(inf) sends everything at once, or keeps O(max_concurrency)
        requests open for O(duration).
    type: list
    elements: str
    default: [inf]
  requests:
    description: Requests per rate. 1000 make a steady 99th percentile.
    type: int
    default: 1000
  duration:
    description: Seconds in which requests are sent, in place of O(requests). Answers are waited for in any case.
    type: float
  burstiness:
    description:
      - Shape of the gamma distribution of the gaps between requests. 1 is a Poisson process, less comes in bursts, more
        is more even.
    type: float
    default: 1.0
  max_concurrency:
    description: Requests open at once; others wait in the client, which is reported apart. No limit by default.
    type: int
  warmup:
    description: Requests before each rate that are not counted.
    type: int
    default: 10
  prompt_tokens:
    description:
      - Tokens of a prompt of random words. The number of words is corrected by what the server counts for a first
        request.
    type: int
    default: 512
  prompts_file:
    description:
      - JSONL file on the host that runs the module, in place of random words. Each line is an object with C(prompt) (a
        text) or C(messages) (a list), and perhaps C(max_tokens).
    type: path
  max_tokens:
    description: Tokens of an answer.
    type: int
    default: 256
  ignore_eos:
    description: Whether answers go on until O(max_tokens). Known to vLLM, SGLang and llama.cpp; others may refuse it.
    type: bool
    default: true
  request_timeout:
    description: Seconds after which a request has failed.
    type: float
    default: 300.0
  wait:
    description: Seconds to wait for a server that is still loading its model.
    type: float
    default: 0.0
  max_failures:
    description: Failed requests of one rate after which nothing more is sent, at this rate or the following ones.
    type: int
    default: 100
  seed:
    description:
      - Same seed, same prompts and same times. A server's prefix cache knows the prompts of a seed it has seen.
    type: int
    default: 0
  goals:
    description:
      - What has to be met at one rate, all of it. C(output_throughput), C(total_token_throughput),
        C(request_throughput), C(request_goodput) and C(slo_attainment) are lower limits; C(p99_ttft_ms) and its like
        (C(mean), C(median), C(p50), C(p95), C(p99) of C(ttft), C(tpot), C(itl), C(e2el)) upper ones. Zero removes one.
      - By default C(p99_ttft_ms=200), C(p99_itl_ms=50) and C(output_throughput=5000).
    type: dict
    default: {}
  slo:
    description:
      - Limits in milliseconds that a request has to keep to count for goodput, C(ttft), C(tpot) and C(e2el). By default
        C(ttft=200) and C(tpot=50). Zero removes one.
    type: dict
    default: {}
  run_id:
    description: Identifier that is returned with the result.
    type: str
    default: ""
  results:
    description:
      - What this module returned for single rates of one benchmark. They are put together and judged as a whole;
        nothing is sent.
    type: list
    elements: dict
  broken_off:
    description: With O(results), why rates after them could not be measured. The verdict is then V(fail).
    type: str
  report:
    description: File for the result as JSON, on the host that runs the module; its directory is made.
    type: path
attributes:
  check_mode:
    support: full
    description: Tells what would be sent, contacts no server and writes no report.
  diff_mode:
    support: none
    description: There is nothing to compare.
  platform:
    platforms: posix
    support: full
    description: Any host with Python 3.9 or later that reaches the server.
author:
  - The Rackwright authors
"""

EXAMPLES = r"""
- name: Find the rate up to which a chat server answers quickly enough
  serving_benchmark:
    url: http://gpu-01:8000
    rates: [1, 4, 16]
    duration: 60
    goals:
      output_throughput: 0
  delegate_to: localhost

- name: Measure the highest throughput with 64 requests open, through TLS and a key
  serving_benchmark:
    url: https://llm.example.org
    api_key: "{{ vault_llm_key }}"
    ca_path: /etc/ssl/ours.pem
    max_concurrency: 64
"""

RETURN = r"""
serving_benchmark:
  description:
    - C(schema), C(kind), C(run_id), C(host), C(url), C(endpoint), C(model), C(answered_as) (the model's name in the
      first answer), C(prompts), C(load), C(points), C(verdict) (V(pass), V(warn), V(fail) or V(not_judged)),
      C(reasons) and C(best), the rate that meets all goals with the highest output throughput, or null.
    - Each of C(points) has C(request_rate), the measures in vLLM's names (seconds, per second, or milliseconds where
      the name ends in C(_ms); null where nothing was measured), C(samples) behind the percentiles, C(errors) by class
      with examples, C(server_gone_after_s) (the time of the last answer of a server that stopped listening, else
      null), C(client) (how late and busy it was), C(goals) with their states, C(verdict), C(reasons) and C(notes).
    - In check mode C(planned) has the loads and C(points) is empty.
  returned: success
  type: dict
table_text:
  description: The same as a table of at most 120 columns.
  returned: success
  type: str
report:
  description: Path of the report.
  returned: success, when O(report) is set, not in check mode
  type: str
"""

import asyncio
import os
import platform
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible.module_utils.rackwright import serving_goals, serving_report, serving_run
from ansible.module_utils.rackwright.errors import InvalidInputError, RackwrightError
from ansible.module_utils.rackwright.reports import make_directory, write_json
from ansible.module_utils.rackwright.serving_client import Client, tls_context
from ansible.module_utils.rackwright.serving_http import parse_address
from ansible.module_utils.rackwright.serving_prompts import load_prompts
from ansible.module_utils.rackwright.serving_schedule import parse_rate

ARGUMENT_SPEC: dict[str, Any] = {
    "url": {"type": "str"},
    "endpoint": {"type": "str", "choices": ["chat", "completions"], "default": "chat"},
    "model": {"type": "str"},
    "api_key": {"type": "str", "no_log": True},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "rates": {"type": "list", "elements": "str", "default": ["inf"]},
    "requests": {"type": "int", "default": 1000},
    "duration": {"type": "float"},
    "burstiness": {"type": "float", "default": 1.0},
    "max_concurrency": {"type": "int"},
    "warmup": {"type": "int", "default": 10},
    # tokens of text, no secrets
    "prompt_tokens": {"type": "int", "default": 512, "no_log": False},
    "prompts_file": {"type": "path"},
    "max_tokens": {"type": "int", "default": 256, "no_log": False},
    "ignore_eos": {"type": "bool", "default": True},
    "request_timeout": {"type": "float", "default": 300.0},
    "wait": {"type": "float", "default": 0.0},
    "max_failures": {"type": "int", "default": 100},
    "seed": {"type": "int", "default": 0},
    "goals": {"type": "dict", "default": {}},
    "slo": {"type": "dict", "default": {}},
    "run_id": {"type": "str", "default": ""},
    "results": {"type": "list", "elements": "dict"},
    "broken_off": {"type": "str"},
    "report": {"type": "path"},
}
#: Options that are numbers above zero where they are set.
POSITIVE = (
    *("requests", "duration", "burstiness", "max_concurrency", "prompt_tokens", "max_tokens"),
    *("request_timeout", "max_failures"),
)


def check_numbers(params: dict[str, Any]) -> None:
    """Refuse numbers that plan nothing: zero, negative, NaN."""
    for name in (*POSITIVE, "warmup", "wait"):
        value, least = params[name], name in ("warmup", "wait")
        if value is not None and not (value >= 0 if least else value > 0):
            raise InvalidInputError(
                "plan the load",
                name,
                f"{value} is not {'zero or above' if least else 'above zero'}",
                "Give such a number",
            )


def request_of(params: dict[str, Any]) -> serving_run.Request:
    """Return the options, checked."""
    check_numbers(params)
    if any(character in (params["api_key"] or "").strip() for character in "\r\n\0"):
        raise InvalidInputError("use the key", "api_key", "it has several lines", "Give the key alone")
    if not params["rates"]:
        raise InvalidInputError("plan the load", "rates", "there is none", "Give one rate or several, like [1, 4, inf]")
    path = params["prompts_file"]
    return serving_run.Request(
        address=parse_address(params["url"]),
        chat=params["endpoint"] == "chat",
        model=params["model"] or None,
        rates=tuple(parse_rate(text) for text in params["rates"]),
        requests=params["requests"],
        duration_s=params["duration"],
        burstiness=params["burstiness"],
        max_concurrency=params["max_concurrency"],
        warmup=params["warmup"],
        prompt_tokens=params["prompt_tokens"],
        prompts_file=path,
        prompts=tuple(load_prompts(path)) if path else (),
        max_tokens=params["max_tokens"],
        ignore_eos=params["ignore_eos"],
        timeout_s=params["request_timeout"],
        wait_s=params["wait"],
        max_failures=params["max_failures"],
        seed=params["seed"],
        run_id=params["run_id"],
        host=platform.node(),
        goals=serving_goals.goals_of(params["goals"]),
        slo=serving_goals.slo_of(params["slo"]),
    )


def document_of(params: dict[str, Any], check_mode: bool) -> dict[str, Any]:
    """Return the document that the options ask for."""
    if params["results"] is not None:
        return serving_run.merge(params["results"], params["broken_off"])
    request = request_of(params)
    if check_mode:
        return serving_run.plan(request)
    tls = tls_context(params["validate_certs"], params["ca_path"]) if request.address.tls else None
    # a key that was read from a file ends with a line feed
    client = Client(request.address, (params["api_key"] or "").strip(), tls, request.timeout_s)
    return asyncio.run(serving_run.run(request, client))


def main() -> None:
    """Benchmark or put together, write the report, return the table."""
    module = AnsibleModule(
        argument_spec=ARGUMENT_SPEC,
        supports_check_mode=True,
        required_one_of=[("url", "results")],
        mutually_exclusive=[("url", "results")],
    )
    report = None if module.check_mode else module.params["report"]
    try:
        document = document_of(module.params, module.check_mode)
        if report:
            make_directory(os.path.dirname(report) or ".")
            write_json(report, document)
    except RackwrightError as error:
        module.fail_json(**error.to_result())
    module.exit_json(
        changed=False,
        # results come in and go out again in the document: once is enough
        invocation={"module_args": {**module.params, "results": None, "api_key": None}},
        serving_benchmark=document,
        table_text=serving_report.table_text(document, report),
        **({"report": report} if report else {}),
    )


if __name__ == "__main__":
    main()
