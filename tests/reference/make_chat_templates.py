"""Renders chat templates with transformers and writes what they give into chat_templates.json.

    python make_chat_templates.py TEMPLATES.json

TEMPLATES.json maps names to templates, such as those of TRL (trl/chat_templates, Apache-2.0). Without an argument the templates
of chat_templates.json are rendered again. `snippets` are single expressions, for what Jinja in Python and here could do
differently. Made with transformers 5.24 and jinja2 3.1.6.
"""

import json
import sys
from datetime import datetime
from pathlib import Path
from unittest import mock

from transformers.utils import chat_template_utils as utils

OUT = Path(__file__).with_name("chat_templates.json")
CHOSEN = ["cohere_training", "deepseekv3_training", "gemma", "lfm2", "llama3", "llama3_2", "phi3", "qwen2_5", "qwen3", "qwen3_training"]
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather, \"now\"", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}}, "required": ["city"]}}}]
USER = {"role": "user", "content": "Grüezi 🙂 <b>\n\"Zitat\""}
CASES = {
    "single": ([USER, {"role": "assistant", "content": " Hello! "}], None, False, {}),
    "multi": ([{"role": "system", "content": "Be brief."}, USER, {"role": "assistant", "content": "b"},
               {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}], None, False, {}),
    "prompt": ([USER], None, True, {}),
    "no_think": ([USER, {"role": "assistant", "content": "x", "reasoning_content": "r"}], None, False, {"enable_thinking": False}),
    "tools": ([USER, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id": "1", "function": {
        "name": "get_weather", "arguments": {"city": "Zürich", "share": 0.25, "all": True, "none": None, "big": 1e22}}}]},
        {"role": "tool", "name": "get_weather", "content": "{\"t\": 12}"}, {"role": "assistant", "content": "12"}], TOOLS, False, {}),
    "two_users": ([USER, USER, {"role": "assistant", "content": "c"}], None, False, {}),
}
VALUES = {"n": 3, "x": 0.5, "big": 1e16, "small": 1e-5, "text": "  Ein Text, zwei  ", "yes": True, "nothing": None, "list": [1, "a", None, [True]],
          "map": {"b": 1, "a": "ä\"'", "c": [1.5, None]}, "lines": "a\r\nb\n\nc", "empty": "", "words": ["b", "C", "a"]}
SNIPPETS = [
    "{{ yes }} {{ nothing }} {{ x }} {{ big }} {{ small }} {{ n / 2 }} {{ n // 2 }} {{ n ** 2 }} {{ -n % 2 }}",
    "{{ list }} {{ map }} {{ list|string }} {{ map ~ '!' }}", "{{ map|tojson }} {{ map|tojson(indent=2) }} {{ list|tojson(ensure_ascii=True) }}",
    "{{ map|tojson(sort_keys=True, separators=(',', ':')) }}", "{{ text.strip() }}|{{ text|trim }}|{{ text.split() }}|{{ text.split(',') }}|{{ text.split(' ', 1) }}",
    "{{ text.rsplit(' ', 1)|length }} {{ text.upper().lower().title() }} {{ text.strip().capitalize() }}", "{{ lines.splitlines() }} {{ lines.split('\n')[-1] }}",
    "{{ text.strip('E x') }} {{ text.lstrip() }} {{ text.rstrip(' zi') }} {{ 'abc'.removeprefix('a').removesuffix('c') }}",
    "{{ 'a-b-a'.replace('a', 'c') }} {{ 'a-b-a'.replace('a', 'c', 1) }} {{ 'abc'.find('c') }} {{ 'a' in 'abc' }} {{ 'x' not in map }}",
    "{{ words|sort }} {{ words|reverse|list }} {{ words[::-1] }} {{ words[1:] }} {{ text[2:5] }} {{ words[-1] }}",
    "{{ map.items()|list }} {{ map.keys()|list }} {{ map.get('z', 5) }} {{ map.get('z') }} {{ map|dictsort }} {{ map|items|list }}",
    "{{ missing is defined }} {{ missing is none }} {{ nothing is none }} {{ missing|default('d') }} {{ empty|default('d', true) }} {{ nothing|default('d') }}",
    "{{ text is string }} {{ text is iterable }} {{ text is sequence }} {{ map is sequence }} {{ map is mapping }} {{ nothing is iterable }} {{ n is number }} {{ yes is number }} {{ yes is integer }} {{ x is float }} {{ yes is boolean }}",
    "{% for i in range(3) %}{{ loop.index }}{{ loop.first }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.revindex0 }}{{ loop.length }};{% endfor %}",
    "{% for k, v in map.items() %}{{ k }}={{ v }},{% else %}none{% endfor %}{% for a in words if a != 'C' %}{{ a }}{% if loop.index > 1 %}{% break %}{% endif %}{% endfor %}",
    "{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}", "{% set t %}\n  in {{ n }}\n{% endset %}[{{ t }}]",
    "{% macro m(a, b='z') %}{{ a }}{{ b }}{{ varargs|length }}{% endmacro %}{{ m(1) }}{{ m(1, b=2) }}", "{% macro m(a, b='z') -%}\n  {{ a }}{{ b }}\n{%- endmacro %}{{ m(n) ~ m(1, 2) }}",
    "a\n  {% if yes %}\n  b\n  {% endif %}\n c {%- if n == 3 -%}  \n d {%- endif %}\n{# x #}\nend\n", "{{ 'a' + 'b' * 2 ~ 3 }} {{ [1] + [2] }} {{ 'yes' if empty else 'no' }} {{ 1 if missing }}",
    "{{ words|join(', ') }} {{ list|first }} {{ list|last }} {{ words|length }} {{ words|map('upper')|join }} {{ [3,1]|max }} {{ [1, 2]|sum }}",
    "{{ [{'r': 'u', 'c': 1}, {'r': 'a'}]|selectattr('r', 'equalto', 'u')|list }} {{ [{'r': 'u'}, {'r': 'a'}]|map(attribute='r')|list }} {{ [{'r': 'u'}]|rejectattr('r', '==', 'u')|list|length }}",
    "{{ '%s-%d' % ('a', 3) }} {{ '{}:{}'.format(1, 'b') }} {{ '%05.1f'|format(2.25) }}", "{{ (1, 2) }} {{ (1,) }} {{ {'a': 1}['a'] }} {{ map['a'] }} {{ map.a }} {{ words.0 }}",
    "{{ n is divisibleby 3 }} {{ n is odd }} {{ 'a' is in words }} {{ n is eq 3 }} {{ not yes or n > 2 and n <= 3 }}", "{{ '<a>&'|e }} {{ '<a>'|safe }} {{ '&' }}",
    "{{ text|replace(' ', '_') }} {{ words|unique|list }} {{ 'abc'|list }} {{ 'a b'|wordcount }} {{ 3.7|int }} {{ '4'|int + 1 }} {{ 3|float }} {{ 2.5|round }} {{ 3.14159|round(2) }} {{ -3|abs }}",
    "{{ '\\u001c a \\u00a0'.strip()|length }} {{ 'é'|upper }} {{ 'ß'.upper() }} {{ 'a\tb'|tojson }} {{ '\\u2028</script>'|tojson }}", "{{ dict(a=1, b=2) }} {{ dict(a=1).items()|list }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% with c = 3 %}{{ c }}{% endwith %}{{ c }}", "{{ words|sort(reverse=true) }} {{ map.values()|list }} {{ words|batch(2)|list }} {{ {'x': 1, 'y': 2}|length }}",
    "{{ 1 == 1.0 }} {{ 1 == true }} {{ '1' == 1 }} {{ none == missing }} {{ '' == missing }} {{ [] == [] }} {{ 'a' < 'b' }}", "{{ messages[0].content.x }}", "{{ missing.x }}", "{{ 'a' + 1 }}", "{{ nothing + 'a' }}", "{{ nothing|length }}",
    "{{ missing + 'a' }}", "{{ 'a'.nope() }}", "{{ words.append('d') }}", "{{ 1 / 0 }}", "{% for a in nothing %}{% endfor %}", "{% for a in missing %}{% endfor %}ok", "{{ missing|length }}", "{{ map.missing }}|{{ map['missing'] }}|{{ words[9] }}",
    "{% generation %}a{% endgeneration %} b {%- generation %} c\n{%- endgeneration -%}  d", "{% for w in words %}{{ w }}{% generation %}{{ loop.index }}{% if loop.last %}.{% endif %}{% endgeneration %}{% endfor %}",
    "{% set ns = namespace(a=1) %}{% generation %}{% set ns.a = 5 %}{{ ns.a }}{% endgeneration %}{{ ns.a }}", "{{ raise_exception('no') }}", "{{ strftime_now('%d %b %Y %j %A') }}", "{{ bos_token + eos_token }}{{ pad_token }}",
]


class Fixed(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2026, 11, 26)


def rendered(template, messages, tools, prompt, extra):
    try:
        text, spans = utils.render_jinja_template(
            [messages], tools=tools, chat_template=template, add_generation_prompt=prompt,
            return_assistant_tokens_mask=True, bos_token="<s>", eos_token="</s>", **extra)
        spans = [[a, b] for a, b in spans[0] if a < b] if "endgeneration" in template else None
        return {"rendered": text[0], "spans": spans}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    old = json.loads(OUT.read_text()) if OUT.exists() else {"templates": {}}
    templates = old["templates"]
    if len(sys.argv) > 1:
        given = json.loads(Path(sys.argv[1]).read_text())
        given = given.get("templates", given)
        templates = {name: given[name] for name in CHOSEN}
    with mock.patch("datetime.datetime", Fixed), mock.patch.object(utils, "datetime", Fixed, create=True):
        vectors = [{"template": name, "case": case} | rendered(template, *CASES[case]) for name, template in templates.items() for case in CASES]
        snippets = [{"template": text} | rendered(text, [{"role": "user", "content": "Hi"}], None, False, VALUES) for text in SNIPPETS]
    cases = {name: dict(zip(["messages", "tools", "prompt", "extra"], case)) for name, case in CASES.items()}
    made = {"source": "templates of TRL f2cd577 (trl/chat_templates, Apache-2.0)", "templates": templates, "cases": cases,
            "vectors": vectors, "values": VALUES, "snippets": snippets}
    OUT.write_text(json.dumps(made, ensure_ascii=False, indent=0) + "\n")
    print(len(vectors), len(snippets), sum("error" in s for s in snippets))


main()
