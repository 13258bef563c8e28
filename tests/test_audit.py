"""What the audit finds out about templates, and how the command says it."""

from __future__ import annotations

import json

import pytest
from chat_templates import CHATML, FOLDER, INST, source
from typer.testing import CliRunner

from ringfence.audit import audit
from ringfence.cli import app
from ringfence.policy_files import as_file
from ringfence.rendering.templates import Allowance, TemplateFailed
from ringfence.rendering.traits import Program
from ringfence.rings import Policy


def audited(template: str, **options):
    return audit("test", Program(source=template, bos="<s>", eos="</s>"), **options)


def fates(report) -> dict[str, str]:
    return {finding.probe: finding.fate for finding in report.findings}


def test_dropped_messages_are_found():
    report = audited(source("qwen2_5"))
    assert fates(report) == {
        "leading system": "kept",
        "leading developer": "dropped",
        "developer after system": "dropped",
        "system mid-conversation": "kept",
        "tool call": "kept",
        "tool result": "kept",
        "consecutive users": "kept",
    }
    assert report.lost and not report.invented


def test_a_tool_result_inside_a_user_turn_is_told():
    results = {f.probe: f.detail for f in audited(source("qwen3")).findings}
    assert results["tool result"] == "inside a user turn"
    assert {f.probe: f.detail for f in audited(source("llama3")).findings}["tool result"] == ""


def test_roles_that_look_the_same_are_found_where_their_rings_differ():
    report = audited(source("gptoss"))
    assert [(a.first, a.second) for a in report.alike] == [("system", "developer")]
    assert audited(source("gptoss"), policy=Policy.preset("paper")).alike == ()


def test_a_call_that_only_comes_without_content_is_kept():
    shows = (
        "{% for m in messages %}{% if m.tool_calls and m.content is none %}"
        "{{ m.tool_calls[0].function.arguments }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    fails = shows.replace(
        "{% if m.t", "{% if m.tool_calls and '' == m.content %}{{ 1 / 0 }}{% elif m.t"
    )
    for template in (shows, fails):
        assert fates(audited(template))["tool call"] == "kept"
        assert fates(audited(template))["tool result"] != "failed"
    assert fates(audited(CHATML))["tool call"] == "dropped"


def test_a_system_message_glued_to_the_users_is_merged():
    report = audited(source("gemma3"))
    assert fates(report)["leading system"] == "merged" and report.lost


def test_a_moved_message_is_told():
    assert fates(audited(source("deepseekv3")))["system mid-conversation"] == "moved"


def test_a_refusal_is_no_loss():
    report = audited(INST)
    assert fates(report)["leading system"] == "refused"
    assert fates(report)["consecutive users"] == "refused"
    assert not report.lost and not report.invented


def test_an_echo_of_any_role_is_accepted_and_said():
    report = audited(CHATML)
    assert report.invented
    details = {f.probe: f.detail for f in report.findings}
    assert details["leading developer"] == "as any invented role is"
    assert report.empty_system == "shown"
    assert audited(source("gptoss")).empty_system == "ignored"


def test_control_tokens_in_text_are_found_unless_the_template_escapes_them():
    report = audited(CHATML, control=("<|im_start|>", "<|im_end|>"))
    assert report.control == ("<|im_start|>", "<|im_end|>")
    escaping = CHATML.replace("message['content']", "message['content'] | replace('<', '&lt;')")
    assert audited(escaping, control=("<|im_end|>",)).control == ()
    assert audited(CHATML, control=("<|im_end|>",), parse=lambda text: ()).control == ()


def test_control_tokens_that_steer_are_told():
    template = (
        "{% for m in messages %}{% if '<|x|>' in m.content %}{{ raise_exception('no') }}"
        "{% endif %}{{ m.content }}{% endfor %}"
    )
    assert audited(template, control=("<|x|>", "<|y|>")).steered == ("<|x|>",)


def test_only_so_many_control_tokens_are_tried_with_or_without_a_tokenizer():
    tokens = [f"<t{number}>" for number in range(450)]
    template = "".join(tokens) + "{{ messages[0].content }}"
    assert audited(template).control_tried == 400
    assert audited(template, control=tokens).control_tried == 400


def test_an_audit_has_one_allowance_for_everything(monkeypatch):
    monkeypatch.setattr("ringfence.audit.Allowance", lambda **_: Allowance(seconds=0.2))
    template = (
        "{% if '<' in messages[0].content %}{% for i in range(99999) %}{% for j in range(99999) %}"
        "{% endfor %}{% endfor %}{% endif %}{{ messages[0].content }}"
    )
    with pytest.raises(TemplateFailed, match="too long"):
        audited(template, control=["<a>", "<b>", "<c>"])


@pytest.mark.parametrize("template", ["{% for", "{{ 1 / 0 }}", "{{ raise_exception('no') }}"])
def test_a_template_that_renders_nothing_at_all_cannot_be_audited(template):
    with pytest.raises(TemplateFailed):
        audited(template)


# --- the command --------------------------------------------------------------------------------


def command(*words: object):
    return CliRunner().invoke(app, ["audit", *map(str, words)])


def test_a_tokenizers_settings_are_audited_by_the_template_in_them(tmp_path):
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps({"chat_template": source("gptoss"), "eos_token": "</s>"}))
    alone = json.loads(command(FOLDER / "gptoss.jinja", "--json").stdout)
    for name in (file, tmp_path, f"hf:{tmp_path}"):
        assert json.loads(command(name, "--json").stdout)["findings"] == alone["findings"]


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("tokenizer_config.json", "{}", "holds no chat_template"),
        ("empty.jinja", " ", "is empty"),
        ("readme.md", "# Hi", "ends with .jinja"),
        ("missing.jinja", None, "no such file or folder"),
    ],
)
def test_what_is_no_template_is_an_error_and_no_finding(tmp_path, name, text, error):
    if text is not None:
        (tmp_path / name).write_text(text)
    done = command(tmp_path / name)
    assert done.exit_code == 2 and error in done.stderr


def test_a_folder_without_a_template_says_what_it_needs(tmp_path):
    done = command(tmp_path)
    assert done.exit_code == 2 and "chat_template.jinja" in done.stderr


def test_the_command_exits_with_1_where_something_is_lost_and_0_where_nothing_is(tmp_path):
    lossy, strict = FOLDER / "gptoss.jinja", tmp_path / "inst.jinja"
    strict.write_text(INST)
    done = command(lossy)
    assert done.exit_code == 1 and "dropped" in done.stdout and "same text" in done.stdout
    assert command(strict).exit_code == 0


def test_the_command_takes_a_policy_of_a_file(tmp_path):
    policy = tmp_path / "shop.yaml"
    policy.write_text(json.dumps(as_file(Policy.preset("harmony")).model_dump(mode="json")))
    done = command(FOLDER / "gptoss.jinja", "--policy", policy)
    assert done.exit_code == 1, done.stderr


def test_the_command_writes_json():
    done = command(FOLDER / "gptoss.jinja", "--json")
    report = json.loads(done.stdout)
    assert report["lost"] is True and report["alike"][0]["second"] == "developer"


@pytest.mark.parametrize("key", ["chat_template.jinja", "tokenizer_config.json", "named"])
def test_the_command_takes_a_folder_without_a_tokenizer(tmp_path, key):
    if key == "chat_template.jinja":
        (tmp_path / key).write_text(CHATML)
    else:
        named = [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHATML}]
        template = named if key == "named" else CHATML
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    assert command(tmp_path).exit_code == 1  # it drops tool calls


def test_the_ordinary_path_of_a_tokenizer_is_asked(tmp_path):
    import tokenizers
    from tokenizers import AddedToken, models, pre_tokenizers

    letters = {chr(code): code for code in range(33, 127)}
    encoder = tokenizers.Tokenizer(models.BPE(vocab=letters, merges=[]))
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.add_special_tokens([AddedToken("<|im_start|>", special=True)])
    encoder.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    encoder.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    done = command(tmp_path, "--json")
    assert set(json.loads(done.stdout)["control"]) == {"<|im_start|>", "<|im_end|>"}


@pytest.mark.parametrize("content", ["{% for", "{{ 1 / 0 }}", "\x00\xff", "x" * 2_000_000])
def test_bad_input_exits_with_2_and_one_line(tmp_path, content):
    file = tmp_path / "bad.jinja"
    file.write_bytes(content.encode("latin-1"))
    done = command(file)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: audit: ") and done.stderr.count("\n") == 1


def test_what_is_not_there_exits_with_2(tmp_path):
    assert command(tmp_path / "none").exit_code == 2
    assert command(tmp_path).exit_code == 2
    assert command(FOLDER / "gptoss.jinja", "--policy", "none").exit_code == 2


def test_a_policys_name_cannot_move_the_cursor(tmp_path):
    policy = as_file(Policy.preset("harmony")).model_dump(mode="json")
    roles = {"system": "system", "developer\x1b[5m": "developer"}
    (tmp_path / "evil.yaml").write_text(
        json.dumps(policy | {"name": "evil\x1b]0;pwned\x07\x1b[31mX", "roles": roles})
    )
    shown = command(FOLDER / "gptoss.jinja", "--policy", tmp_path / "evil.yaml").stdout
    assert "\x1b" not in shown and "\\x1b]0;pwned" in shown


def test_a_templates_words_cannot_move_the_cursor(tmp_path):
    file = tmp_path / "evil.jinja"
    file.write_text(
        "{% if messages[0].role == 'system' %}{{ raise_exception('\x1b[2J\\u202e') }}{% endif %}"
        "{% for m in messages %}{{ m.content }} . {% endfor %}"
    )
    shown = command(file).stdout
    assert "\x1b" not in shown and "\u202e" not in shown and "\\x1b" in shown
